"""Uploads: the same content is known again, titles stay as they were typed, and jobs can be cancelled."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dciml.service.adding import MAX_TITLE_CHARS, title_of
from dciml.service.errors import ServiceError
from dciml.service.settings import Limits

WAIT_SECONDS = 60.0
TITLE = "  „Größe“  'n' \"quotes\" 👩‍🚀 a%22b 日本 <b>&amp;  "


def other(served: Path, mark: str = "") -> bytes:
    """A video that the index does not hold: behind one that it holds comes a box that says nothing."""
    box = mark.encode()
    return (served / "videos" / "v1.mp4").read_bytes() + (8 + len(box)).to_bytes(4, "big") + b"free" + box


def upload(client: TestClient, name: str, content: bytes, title: str | None = None) -> Any:
    data = {} if title is None else {"title": title}
    return client.post("/api/videos", data=data, files={"file": (name, content, "video/mp4")})


def ended(client: TestClient, job_id: str) -> dict[str, Any]:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        job = dict(client.get(f"/api/jobs/{job_id}").json())
        if job["state"] not in ("queued", "running"):
            return job
        assert time.monotonic() < end, job
        time.sleep(0.05)


def add(client: TestClient, name: str, content: bytes, title: str | None = None) -> dict[str, Any]:
    response = upload(client, name, content, title)
    assert response.status_code == 202, response.text
    job = ended(client, response.json()["job_id"])
    assert job["state"] == "done", job
    return job


def test_what_the_index_holds_is_known_by_its_content(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own)
    response = upload(client, "another name.webm", (own / "videos" / "v2.mp4").read_bytes())
    assert response.status_code == 409
    assert response.json()["video_id"] == "plain"
    assert "already, as “v2”" in response.json()["detail"]
    assert "job_id" not in response.json()
    assert not list((own / "index.added" / "incoming").iterdir())
    assert client.get("/api/jobs").json()["jobs"] == []


def test_what_was_uploaded_is_known_after_a_restart_until_it_is_removed(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    content, first = other(own), client_of(own)
    video_id = add(first, "a.mp4", content)["video_id"]
    first.__exit__(None, None, None)
    kept = own / "index.added" / "contents.sqlite"
    with closing(sqlite3.connect(kept)) as connection:
        rows = connection.execute("SELECT path, num_bytes FROM contents").fetchall()
    assert rows == [(str((own / "index.added" / "videos" / "a.mp4").resolve()), len(content))]
    again = client_of(own)
    refused = upload(again, "b.mp4", content)
    assert (refused.status_code, refused.json()["video_id"]) == (409, video_id)
    assert again.delete(f"/api/videos/{video_id}").status_code == 204
    assert add(again, "b.mp4", content)["video_id"] == "b"


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_the_memory_of_contents_may_be_lost(
    own: Path, client_of: Callable[..., TestClient], harm: str
) -> None:
    content, first = other(own), client_of(own)
    add(first, "a.mp4", content)
    first.__exit__(None, None, None)
    kept = own / "index.added" / "contents.sqlite"
    kept.unlink() if harm == "gone" else kept.write_bytes(b"no database" * 1000)
    again = client_of(own)
    assert upload(again, "b.mp4", content).json()["video_id"] == "a"
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM contents").fetchone() == (1,)


def test_a_file_that_was_changed_is_read_again(own: Path, client_of: Callable[..., TestClient]) -> None:
    client, content = client_of(own), other(own, "1")
    add(client, "a.mp4", content)
    file = own / "index.added" / "videos" / "a.mp4"
    file.write_bytes(other(own, "2"))  # of the same size
    assert upload(client, "b.mp4", other(own, "2")).status_code == 409
    assert upload(client, "b.mp4", content).status_code == 202


def test_files_that_may_not_be_played_are_not_read(
    own: Path, tmp_path: Path, client_of: Callable[..., TestClient], edited: Any
) -> None:
    secret = tmp_path / "elsewhere" / "secret.mp4"
    secret.parent.mkdir()
    secret.write_bytes(other(own))
    with edited(own / "index") as connection:
        connection.execute(
            "UPDATE videos SET media_absolute = ?, media_relative = NULL WHERE video_id = 'plain'",
            (str(secret),),
        )
    assert upload(client_of(own), "a.mp4", secret.read_bytes()).status_code == 202


def test_the_same_file_twice_at_once_is_added_once(own: Path, client_of: Callable[..., TestClient]) -> None:
    client, content = client_of(own, limits=Limits(uploads_per_client=4)), other(own)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: upload(client, f"{number}.mp4", content), range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    (job,) = (answer.json() for answer in answers if answer.status_code == 202)
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["video_id"] == job["video_id"]
            assert answer.json().get("job_id", job["job_id"]) == job["job_id"]
    assert ended(client, job["job_id"])["state"] == "done"
    assert client.get("/healthz").json()["videos"] == 7


def test_content_whose_job_failed_may_be_sent_again(own: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(own)
    for _ in range(2):
        response = upload(client, "x.mp4", b"no video")
        assert response.status_code == 202
        assert ended(client, response.json()["job_id"])["state"] == "failed"


@pytest.mark.parametrize(
    "title", [TITLE, "a" * MAX_TITLE_CHARS, "👩‍🚀" * 100, "CON", "../../etc/passwd", "e\u0301"]
)
def test_a_title_stays_as_it_was_typed(own: Path, client_of: Callable[..., TestClient], title: str) -> None:
    client = client_of(own)
    job = add(client, "x.mp4", other(own), title)
    assert job["title"] == title
    client.__exit__(None, None, None)
    again = client_of(own)
    assert again.get("/api/videos/x").json()["title"] == title
    assert (
        again.get("/api/videos", params={"search": title.strip()[:50]}).json()["videos"][0]["title"] == title
    )
    body = {"sentence": "the picture is green", "video_ids": ["x"]}
    assert {hit["title"] for hit in again.post("/api/search", json=body).json()["hits"]} == {title}


def test_without_a_title_the_name_of_the_file_is_it(own: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(own)
    job = add(client, 'Der "Große" 🚀 Tag.v2.mp4', other(own))
    assert job["video_id"] == "Der _Große_ _ Tag.v2"
    assert client.get("/api/videos/" + job["video_id"]).json()["title"] == 'Der "Große" 🚀 Tag.v2'
    assert add(client, "blank.mp4", other(own, "1"), "   ")["video_id"] == "blank"
    assert client.get("/api/videos/blank").json()["title"] == "blank"


@pytest.mark.parametrize(
    "title", ["a\nb", "a\0b", "a\x1b[31mb", "\x7f", "a\u2028b", "a" * (MAX_TITLE_CHARS + 1)]
)
def test_titles_that_cannot_be_shown_are_refused(changing_client: TestClient, title: str) -> None:
    response = upload(changing_client, "x.mp4", b"x", title)
    assert response.status_code == 422
    assert "To mend it: " in response.json()["detail"]
    assert title not in response.text


def test_half_a_surrogate_pair_is_no_title() -> None:
    with pytest.raises(ServiceError, match="cannot be shown"):
        title_of("x.mp4", "a\ud800")


def test_the_server_says_what_it_takes(own: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(own, limits=Limits(running_uploads=3, uploads_per_client=2, queued_jobs=5))
    said = client.get("/api/uploads").json()
    assert (said["allowed"], said["at_once"], said["room"]) == (True, 2, 2)
    assert said["max_title_chars"] == MAX_TITLE_CHARS
    assert ".mkv" in said["suffixes"]
    runtime = client.app.state.runtime  # type: ignore[attr-defined]
    with runtime.uploads.taken("testclient"):
        assert client.get("/api/uploads").json()["room"] == 1
    assert not client_of(own, read_only=True).get("/api/uploads").json()["allowed"]


def test_what_is_on_its_way_counts_as_waiting(own: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(own, limits=Limits(queued_jobs=1))
    runtime = client.app.state.runtime  # type: ignore[attr-defined]
    with runtime.uploads.taken("another client"):
        response = upload(client, "x.mp4", other(own))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


def test_jobs_are_cancelled_where_they_stand_and_leave_nothing(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own)
    first, second, third = (upload(client, f"{n}.mp4", other(own, str(n))).json()["job_id"] for n in range(3))
    assert client.delete(f"/api/jobs/{second}").status_code == 204  # waits, or is just being read
    assert client.delete(f"/api/jobs/{first}").status_code == 204
    assert [ended(client, job)["state"] for job in (first, second, third)] == [
        "cancelled",
        "cancelled",
        "done",
    ]
    assert client.delete(f"/api/jobs/{third}").status_code == 409
    assert client.delete("/api/jobs/none").status_code == 404
    added = own / "index.added"
    assert [file.name for file in (added / "videos").iterdir()] == ["2.mp4"]
    assert not list((added / "incoming").iterdir())
    assert client.get("/healthz").json()["videos"] == 7
    assert add(client, "0.mp4", other(own, "0"))["video_id"] == "0"


def test_a_connection_that_is_cut_leaves_nothing(own: Path, running: Callable[..., Any]) -> None:
    server = running(own)
    content = other(own) * 20
    head = (
        f"POST /api/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(content) + 500}\r\n\r\n"
    ).encode()
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="cut.mp4"\r\n\r\n'
    with server.connect() as connection:
        connection.sendall(head + form + content[: len(content) // 2])
        time.sleep(0.2)
    end = time.monotonic() + 20
    while json.loads(server.ask("GET", "/api/uploads")[1])["room"] < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert json.loads(server.ask("GET", "/api/jobs")[1]) == {"jobs": []}
    assert not list((own / "index.added").rglob("*.mp4"))


@pytest.mark.slow
def test_two_hundred_files_from_two_clients_are_all_taken_in_the_end(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own)

    def send(number: int) -> int:
        for refusals in range(10_000):
            response = upload(client, f"{number}.mp4", b"no video %d" % number)
            if response.status_code != 503:
                assert response.status_code == 202, response.text
                return refusals
            assert int(response.headers["retry-after"]) >= 1
            time.sleep(0.02)
        raise AssertionError("never taken")

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(send, range(200))) > 0
    end = time.monotonic() + WAIT_SECONDS
    while any(job["state"] in ("queued", "running") for job in client.get("/api/jobs").json()["jobs"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not list((own / "index.added" / "incoming").iterdir())
