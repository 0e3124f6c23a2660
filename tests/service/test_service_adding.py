"""Adding and removing videos: jobs, names and paths that clients choose, and files that are no videos."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dciml.index import ClipIndex
from dciml.service.jobs import Job, JobFailed, JobQueue
from dciml.service.settings import Limits

WAIT_SECONDS = 60.0


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended."""
    end = time.monotonic() + WAIT_SECONDS
    seen = [job["progress"]]
    while time.monotonic() < end:
        job = client.get(f"/api/jobs/{job['job_id']}").json()
        seen.append(job["progress"])
        if job["state"] not in ("queued", "running"):
            assert seen == sorted(seen)
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job does not end: {job}")


def upload(client: TestClient, name: str, content: bytes) -> Any:
    return client.post("/api/videos", files={"file": (name, content, "video/mp4")})


@pytest.fixture
def video(served: Path) -> bytes:
    return fresh(served / "videos" / "v1.mp4")


def fresh(file: Path, mark: bytes = b"") -> bytes:
    """The same pictures in a file of other content: behind them comes a box that says nothing."""
    return file.read_bytes() + (8 + len(mark)).to_bytes(4, "big") + b"free" + mark


def test_an_uploaded_video_is_found_played_and_removed(
    own: Path, client_of: Callable[..., TestClient], video: bytes
) -> None:
    client = client_of(own)
    response = upload(client, "my holiday.mp4", video)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/api/jobs/{response.json()['job_id']}"
    job = finished(client, response.json())
    assert (job["state"], job["progress"], job["video_id"]) == ("done", 1.0, "my holiday")
    assert client.get("/api/jobs").json()["jobs"][0] == job
    added = client.get("/api/videos/my holiday").json()
    assert (added["title"], added["duration_seconds"]) == ("my holiday", 6.0)
    assert client.get(added["media_url"]).content == video
    body = {"sentence": "the picture is green", "video_ids": ["my holiday"]}
    assert client.post("/api/search", json=body).json()["hits"]
    kept = own / "index.added" / "videos" / "my holiday.mp4"
    assert kept.read_bytes() == video
    assert not list((own / "index.added" / "incoming").iterdir())
    assert client.delete("/api/videos/my%20holiday").status_code == 204
    assert client.get("/api/videos/my%20holiday").status_code == 404
    assert client.delete("/api/videos/my%20holiday").status_code == 404
    assert not kept.exists()


def test_a_video_that_was_taken_out_may_come_again_under_its_name(
    own: Path, client_of: Callable[..., TestClient], video: bytes
) -> None:
    client = client_of(own)

    def add(name: str, content: bytes) -> tuple[str, str]:
        job = finished(client, upload(client, name, content).json())
        return job["state"], job["video_id"]

    def found(video_id: str) -> list[float]:
        body = {"sentence": "the picture is green", "video_ids": [video_id]}
        hits = client.post("/api/search", json=body).json()["hits"]
        return [value for hit in hits for value in (hit["start_seconds"], hit["score"])]

    blue_red, green_blue = (pytest.approx(found(name), abs=1e-4) for name in ("plain", 'a "b" <b>&ü'))
    assert found("plain") != green_blue
    assert add("trip.mp4", video) == ("done", "trip")
    assert found("trip") == green_blue
    assert client.delete("/api/videos/trip").status_code == 204
    # Neither its old features, nor those of that name in the index's first store, are taken for those of a new file.
    assert add("trip.mp4", fresh(own / "videos" / "v2.mp4")) == ("done", "trip")
    assert found("trip") == blue_red
    assert client.delete("/api/videos/plain").status_code == 204
    assert add("plain.mp4", video) == ("done", "plain")
    assert found("plain") == green_blue


def test_a_video_below_an_allowed_root_stays_where_it_is(
    own: Path, client_of: Callable[..., TestClient], video: bytes
) -> None:
    root = own / "incoming videos"
    (root / "trip").mkdir(parents=True)
    (root / "trip" / "day 1.mp4").write_bytes(video)
    client = client_of(own, allow_roots=(root,))
    job = finished(client, client.post("/api/videos", json={"path": "trip/day 1.mp4"}).json())
    assert (job["state"], job["video_id"]) == ("done", "trip/day 1")
    assert client.get("/media/trip%2Fday%201").content == video
    absolute = {"path": str(root / "trip" / "day 1.mp4")}
    assert client.post("/api/videos", json=absolute).status_code == 409
    assert client.delete("/api/videos/trip%2Fday%201").status_code == 204
    assert (root / "trip" / "day 1.mp4").exists()


def test_paths_outside_of_the_roots_are_refused(
    own: Path, client_of: Callable[..., TestClient], video: bytes
) -> None:
    root = own / "root"
    root.mkdir()
    (own / "root-beside").mkdir()
    (own / "root-beside" / "x.mp4").write_bytes(video)
    (root / "link.mp4").symlink_to(own / "videos" / "v1.mp4")
    (root / "folder").symlink_to(own / "videos")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    (root / "text.txt").write_text("no video")
    client = client_of(own, allow_roots=(root,))

    def status(path: Any) -> int:
        return int(client.post("/api/videos", json={"path": path}).status_code)

    for path in (
        str(own / "videos" / "v1.mp4"), "../videos/v1.mp4", str(root / ".." / "videos" / "v1.mp4"), "link.mp4",
        "folder/v1.mp4", "../root-beside/x.mp4", "/etc/passwd", "a\0.mp4", "~/x.mp4/../../../x.mp4",
    ):  # fmt: skip
        assert status(path) == 403, path
    for path in ("missing.mp4", "loop.mp4", "", ".", "x" * 4000, "a/" * 2000):
        assert status(path) in (404, 422), path
    assert status("text.txt") == 422
    for body in (5, None, ["a"], {"a": 1}):
        assert status(body) == 422, body


def test_nothing_is_added_by_path_where_no_root_was_named(changing_client: TestClient) -> None:
    assert changing_client.post("/api/videos", json={"path": "v1.mp4"}).status_code == 403


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        ("../../../etc/cron.d/x.mp4", "x"),
        ("..\\..\\windows\\x.mp4", "x"),
        ("/absolute.mp4", "absolute"),
        ("..mp4", "video"),
        ("a\r\nSet-Cookie: b.mp4", None),
        ("<img src=x onerror=alert(1)>.mp4", "_img src_x onerror_alert(1)_"),
        ("x" * 300 + ".mp4", "x" * 100),
        ("Füße.MP4", "Füße"),
        ("映" * 90 + ".mp4", "映" * 60),
        ("😀é" * 90 + ".webm", "_é" * 50),
        ("हिन्दी.mp4", "हिन्दी"),
        ("e\u0301te\u0301.mp4", "été"),
    ],
)
def test_names_of_uploads_are_never_paths(
    own: Path, client_of: Callable[..., TestClient], name: str, video_id: str | None
) -> None:
    client = client_of(own)
    response = upload(client, name, b"no video")
    assert response.status_code == 202, response.text
    job = finished(client, response.json())
    assert job["state"] == "failed"
    if video_id is not None:
        assert job["video_id"] == video_id
    files = {path.relative_to(own).parts[0] for path in own.rglob("*") if "cron" in str(path)}
    assert not files
    assert not list((own / "index.added").rglob("*.mp4"))


def test_a_long_name_of_wide_letters_is_stored_whole_and_twice(
    own: Path, client_of: Callable[..., TestClient], video: bytes
) -> None:
    client = client_of(own)
    contents = video, video + b"\0\0\0\x08free"
    jobs = [finished(client, upload(client, "映" * 90 + ".mp4", content).json()) for content in contents]
    assert [job["state"] for job in jobs] == ["done", "done"], jobs
    kept = {file.name for file in (own / "index.added" / "videos").iterdir()}
    assert kept == {f"{job['video_id']}.mp4" for job in jobs}
    assert len(kept) == 2
    assert all(len(os.fsencode(name)) <= 255 - 40 for name in kept)


def test_a_file_that_lies_there_already_is_not_written_over(
    own: Path, client_of: Callable[..., TestClient], video: bytes
) -> None:
    client = client_of(own)
    assert finished(client, upload(client, "first.mp4", video).json())["state"] == "done"
    other = own / "index.added" / "videos" / "mine.mp4"
    other.write_bytes(b"somebody else's")
    assert (
        finished(client, upload(client, "mine.mp4", video + b"\0\0\0\x08free").json())["video_id"] == "mine-2"
    )
    assert finished(client, upload(client, "mine.mp4", b"no video").json())["state"] == "failed"
    assert other.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("name", ["a.txt", "a", "a.mp4.exe", "a.html", "a.m3u8", "a.mp4/", ".", "a.svg"])
def test_names_that_are_no_videos_are_refused(changing_client: TestClient, name: str) -> None:
    response = upload(changing_client, name, b"x")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


PLAYLIST = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"no video", PLAYLIST, b"ffconcat version 1.0\nfile /etc/passwd\n", b"\0\0\0\x20ftypisom" + b"\xff" * 400],
    ids=["empty", "text", "playlist", "script", "damaged"],
)  # fmt: skip
def test_an_upload_that_is_no_video_fails_in_a_sentence_and_leaves_nothing(
    own: Path, client_of: Callable[..., TestClient], content: bytes
) -> None:
    client = client_of(own)
    job = finished(client, upload(client, "x.mp4", content).json())
    assert job["state"] == "failed"
    assert job["message"].endswith(".")
    assert "/" not in job["message"].replace("WebM, MKV", "")
    assert client.get("/healthz").json()["videos"] == 6
    assert not list((own / "index.added").rglob("*.mp4"))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nA: " + b"b" * 100_000),
        ("multipart/form-data; boundary=" + "y" * 5000, b"x"),
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("text/plain", b'{"path": "x"}'),
        ("", b""),
    ],
)  # fmt: skip
def test_malformed_uploads_are_refused(changing_client: TestClient, kind: str, content: bytes) -> None:
    response = changing_client.post("/api/videos", content=content, headers={"content-type": kind})
    assert response.status_code in (400, 415, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_two_files_at_once_are_refused(changing_client: TestClient) -> None:
    files = [("file", ("a.mp4", b"x")), ("file", ("b.mp4", b"x"))]
    assert changing_client.post("/api/videos", files=files).status_code == 400


def test_a_change_by_another_process_is_taken_up(own: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(own, poll_seconds=0.05)
    before = client.app.state.runtime.corpus.now  # type: ignore[attr-defined]
    ClipIndex.open(own / "index").remove(["plain"])
    end = time.monotonic() + 10
    while client.get("/healthz").json()["videos"] == 6 and time.monotonic() < end:
        time.sleep(0.02)
    assert client.get("/api/videos/plain").status_code == 404
    # A request that began before still has its own state.
    assert len(before.searcher.search("the picture is red", 100, within=["plain"])) > 0
    assert "dciml_index_reloads 1.0" in client.get("/metrics").text


def test_an_index_that_breaks_while_it_is_served_goes_on_answering(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own, poll_seconds=0.02)
    (own / "index" / "catalogue.sqlite").rename(own / "gone")
    time.sleep(0.2)
    assert client.post("/api/search", json={"sentence": "the picture is red"}).json()["hits"]
    assert client.get("/healthz").json()["videos"] == 6


def test_jobs_end_cleanly_with_their_queue() -> None:
    jobs, begun, ended = JobQueue(2, 5), threading.Event(), threading.Event()

    def work(_: Job) -> None:
        with jobs.ended_by(ended.set):
            begun.set()
            assert ended.wait(10)

    running, waiting = Job("a"), Job("b")
    jobs.submit(running, work)
    assert begun.wait(10)
    jobs.submit(waiting, work)
    assert jobs.pending_ids() == {"a", "b"}
    jobs.close()
    assert [running.state, waiting.state] == ["cancelled", "cancelled"]


def test_jobs_are_bounded_and_forgotten() -> None:
    jobs, free = JobQueue(2, 3), threading.Event()
    first = Job("first")
    jobs.submit(first, lambda _: free.wait(10) and None)
    while first.state == "queued":
        time.sleep(0.01)
    for _ in range(2):
        jobs.submit(Job("more"), lambda _: None)
    with pytest.raises(Exception, match="too many videos to add"):
        jobs.submit(Job("too many"), lambda _: None)
    free.set()
    while jobs.pending_ids():
        time.sleep(0.01)
    for _ in range(9):
        last = Job("again")
        jobs.submit(last, _fail)
        while last.state in ("queued", "running"):
            time.sleep(0.01)
    assert last.state == "failed"
    assert last.message == "It cannot be done."
    assert len(jobs.all()) <= 4
    assert jobs.get(first.job_id) is None
    jobs.close()


def _fail(_: Job) -> None:
    raise JobFailed("It cannot be done.")


def test_too_many_searches_are_told_to_come_again(served: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(served, limits=Limits(running_searches=1))
    runtime = client.app.state.runtime  # type: ignore[attr-defined]
    with runtime.searches.taken():
        response = client.post("/api/search", json={"sentence": "red"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["content-type"] == "application/problem+json"
    assert client.post("/api/search", json={"sentence": "red"}).status_code == 200
