"""Sentences for moments over HTTP, and the job that teaches a home from them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dciml.recipes.home import Home
from dciml.recipes.teach import NEEDED_VIDEOS
from dciml.recipes.told import read_told, tell
from dciml.service.app import create_app
from dciml.service.settings import ServiceSettings

LOCAL = "http://127.0.0.1"
SECONDS = 120.0
MOMENT = {"video_id": "films/1", "start_seconds": 1.0, "end_seconds": 2.5, "sentence": "a dog runs"}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    with ExitStack() as stack:

        def start(home: Home, *, by_itself: bool = False, **changes: Any) -> TestClient:
            own = None if by_itself else home
            given = {"home": own, "poll_seconds": 0.1, "cache": tmp_path / "cache", **changes}
            app = create_app(ServiceSettings(home.index, **given))
            return stack.enter_context(TestClient(app, base_url=LOCAL))

        yield start


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        now: dict[str, Any] = client.get(f"/api/jobs/{job['job_id']}").json()
        if now["state"] in ("done", "failed", "cancelled"):
            return now
        time.sleep(0.1)
    raise AssertionError(now)


def test_a_sentence_is_kept_listed_and_taken_back(
    home_of: Callable[..., Home], tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    home = home_of(tmp_path, 3, 0)
    client = serve(home)
    kept = client.post("/api/told", json=MOMENT)
    assert kept.status_code == 201
    one = kept.json()
    assert {key: one[key] for key in MOMENT} == MOMENT
    assert abs(one["written_unix"] - time.time()) < 60
    two = client.post("/api/told", json={**MOMENT, "video_id": "films/2", "end_seconds": 12.3}).json()
    assert two["end_seconds"] == 12.0  # players round otherwise than catalogues
    assert [told.told_id for told in read_told(home.path)] == [one["told_id"], two["told_id"]]
    assert client.get("/api/told").json() == {"total": 2, "told": [two, one]}
    assert client.get("/api/told", params={"video_id": "films/1"}).json() == {"total": 1, "told": [one]}
    assert client.get("/api/told", params={"offset": 1, "limit": 1}).json()["told"] == [one]
    state = client.get("/api/teach").json()
    assert (state["can_tell"], state["sentences"], state["videos"]) == (True, 2, 2)
    assert (state["needed_videos"], state["taught"], state["job"]) == (NEEDED_VIDEOS, False, None)
    assert client.delete(f"/api/told/{one['told_id']}").status_code == 204
    assert client.delete(f"/api/told/{one['told_id']}").status_code == 404
    assert client.get("/api/told").json()["total"] == 1
    refused = client.post("/api/teach")
    assert refused.status_code == 422
    assert "24 different videos are needed, and there are 1 sentence(s)" in refused.json()["detail"]
    assert client.delete("/api/teach").status_code == 409


def test_what_was_told_is_given_for_an_example(
    home_of: Callable[..., Home], tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    home = home_of(tmp_path, 3, 0)
    client = serve(home)
    assert client.get("/api/examples").json()["sentences"] == []
    client.post("/api/told", json=MOMENT)
    assert client.get("/api/examples").json()["sentences"] == ["a dog runs"]
    (home.path / "told.jsonl").write_text("junk\n")
    assert client.get("/api/examples").json()["sentences"] == []


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"video_id": "films/9"}, 404, "does not hold the video"),
        ({"video_id": ""}, 422, "video_id"),
        ({"video_id": "v" * 2000}, 422, "video_id"),
        ({"sentence": ""}, 422, "sentence"),
        ({"sentence": " "}, 422, "has no word"),
        ({"sentence": "dog" * 200}, 422, "sentence"),
        ({"sentence": "a\x00dog"}, 422, "control characters"),
        ({"sentence": "a \x1b]0;dog\x07"}, 422, "control characters"),
        ({"sentence": 5}, 422, "sentence"),
        ({"start_seconds": float("nan")}, 422, "start_seconds"),
        ({"end_seconds": float("inf")}, 422, "end_seconds"),
        ({"start_seconds": -1.0}, 422, "start_seconds"),
        ({"start_seconds": 2.5}, 422, "cannot last from 2.5 to 2.5 s"),
        ({"start_seconds": 3.0}, 422, "cannot last from 3 to 2.5 s"),
        ({"end_seconds": 13.0}, 422, "not inside of the video of 12 s"),
        ({"start_seconds": "1"}, 422, "start_seconds"),
        ({"start_seconds": True}, 422, "start_seconds"),
        ({"told_id": "mine"}, 422, "told_id"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    change: dict[str, Any], status: int, words: str, bare: tuple[Home, TestClient]
) -> None:
    home, client = bare
    body = json.dumps({**MOMENT, **change}).encode()
    refused = client.post("/api/told", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == status
    assert words in refused.json()["detail"]
    assert str(home.path) not in refused.text
    assert read_told(home.path) == []


@pytest.fixture(scope="module")
def bare(
    home_of: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, TestClient]]:
    home = home_of(tmp_path_factory.mktemp("bare"), 3, 0)
    app = create_app(ServiceSettings(home.index, home=home, cache=home.path / "cache"))
    with TestClient(app, base_url=LOCAL) as client:
        yield home, client


def test_half_a_letter_is_refused(bare: tuple[Home, TestClient]) -> None:
    body = json.dumps(MOMENT).replace("dog", "\\ud800").encode()
    refused = bare[1].post("/api/told", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code in (400, 422)
    assert "detail" in refused.json()


def test_pages_of_other_sites_tell_nothing(bare: tuple[Home, TestClient]) -> None:
    for method, path in (("POST", "/api/told"), ("POST", "/api/teach"), ("DELETE", "/api/teach")):
        refused = bare[1].request(method, path, json=MOMENT, headers={"Origin": "https://elsewhere.example"})
        assert refused.status_code == 403


def test_a_damaged_file_is_told_and_kept(
    home_of: Callable[..., Home], tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    home = home_of(tmp_path, 3, 1)
    with (home.path / "told.jsonl").open("a") as file:
        file.write("half a li")
    before = (home.path / "told.jsonl").read_text()
    client = serve(home)
    for answer in (client.get("/api/told"), client.get("/api/teach"), client.post("/api/told", json=MOMENT)):
        assert answer.status_code == 422
        assert "line" in answer.json()["detail"] or "JSON" in answer.json()["detail"]
    assert (home.path / "told.jsonl").read_text() == before


def test_who_may_not_write_is_told_why(
    home_of: Callable[..., Home], tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    home = home_of(tmp_path, 3, 1)
    told_id = read_told(home.path)[0].told_id
    asked = [
        ("POST", "/api/told"),
        ("DELETE", f"/api/told/{told_id}"),
        ("POST", "/api/teach"),
        ("DELETE", "/api/teach"),
    ]
    cases = [
        (serve(home, read_only=True), "started with --read-only"),
        (serve(home, host="0.0.0.0"), "it has no token"),
        (serve(home, by_itself=True, read_only=True), "serves an index by itself"),
    ]
    for client, words in cases:
        for method, path in asked:
            refused = client.request(method, path, json=MOMENT)
            assert refused.status_code == 403
            assert words in refused.json()["detail"]
        state = client.get("/api/teach").json()
        assert not state["can_tell"]
        assert words in state["why_not"]
    assert cases[0][0].get("/api/told").json()["total"] == 1
    assert cases[2][0].get("/api/told").json()["total"] == 0
    assert len(read_told(home.path)) == 1


@pytest.mark.slow
def test_the_job_teaches_and_goes_back(
    home_of: Callable[..., Home], tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    home = home_of(tmp_path)
    client = serve(home)
    reader = serve(home, read_only=True)

    def hits(asked: TestClient) -> list[str]:
        answer = asked.post("/api/search", json={"sentence": "a purple thing", "k": 6}).json()
        return [hit["video_id"] for hit in answer["hits"]]

    assert hits(client) == []  # the untrained model knows nothing of these rows
    started = client.post("/api/teach")
    assert started.status_code == 202
    assert started.json()["kind"] == "teach"
    assert client.post("/api/teach").status_code == 409
    done = ended(client, started.json())
    assert done["state"] == "done"
    assert done["message"].startswith("Kept: on 12 sentences")
    state = client.get("/api/teach").json()
    assert state["taught"]
    assert state["report"]["held_out_sentences"] == 12
    assert state["report"]["gain_low"] > 0
    purple = {f"films/{number}" for number in range(5, 36, 6)}
    assert len(purple & set(hits(client))) >= 4
    end = time.monotonic() + SECONDS
    while len(purple & set(hits(reader))) < 4:  # a server that only reads follows
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (
        client.get("/api/videos").json()["total"] == 37
    )  # with the file of the folder, which was read meanwhile

    undone = ended(client, client.request("DELETE", "/api/teach").json())
    assert undone["message"].startswith("The untrained model is in use again")
    assert not client.get("/api/teach").json()["taught"]
    assert not purple & set(hits(client)[:1])
    assert client.get("/api/videos").json()["total"] == 37


@pytest.mark.slow
def test_what_is_not_better_is_said_and_an_ending_server_leaves_nothing(
    home_of: Callable[..., Home], tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    home = home_of(tmp_path, NEEDED_VIDEOS, 0)
    for number in range(NEEDED_VIDEOS):
        tell(home.path, f"films/{number}", 0.0, 1.0, f"word{number}")
    app = create_app(ServiceSettings(home.index, home=home, cache=tmp_path / "cache"))
    with TestClient(app, base_url=LOCAL) as client:
        done = ended(client, client.post("/api/teach").json())
        assert done["state"] == "done"
        assert done["message"].startswith("Not kept: on 8 sentences")
        assert home.taught is None
        client.post("/api/teach")
        while not (home.path / "teaching" / "model").exists():
            time.sleep(0.05)
    assert not (home.path / "teaching").exists()
    assert home.taught is None
