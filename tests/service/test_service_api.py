"""The routes of the service over a real index: what they answer, and how they refuse."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from dciml.index import ClipIndex
from dciml.service.settings import Limits

ODD_ID = 'a "b" <b>&ü'


def check_problem(response: Any, status: int) -> str:
    """A refusal is a problem with a plain sentence, whatever went wrong."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content.keys() == {"type", "title", "status", "detail"}
    assert content["status"] == status
    assert "Traceback" not in content["detail"]
    assert ".py" not in content["detail"]
    return str(content["detail"])


def test_search_answers_with_all_that_the_page_needs(client: TestClient) -> None:
    answer = client.post("/api/search", json={"sentence": "the picture is red", "k": 4})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content.keys() == {"sentence", "found", "confidence", "took_seconds", "hits", "relevance", "notes"}
    assert [hit["rank"] for hit in content["hits"]] == [1, 2, 3, 4]
    for hit in content["hits"]:
        assert 0 <= hit["start_seconds"] < hit["end_seconds"] <= hit["duration_seconds"] == 6.0
        assert client.get(hit["media_url"]).status_code == 200
        assert client.get(hit["thumbnail_url"]).headers["content-type"] == "image/jpeg"
        relevance = content["relevance"][hit["video_id"]]
        assert len(relevance) == 8
        assert all(0 <= value <= 1 for value in relevance)


def test_search_inside_given_videos(client: TestClient) -> None:
    body = {"sentence": "the picture is blue", "video_ids": [ODD_ID]}
    hits = client.post("/api/search", json=body).json()["hits"]
    assert {hit["video_id"] for hit in hits} == {ODD_ID}
    assert client.post("/api/search", json={"sentence": "blue", "video_ids": []}).json()["found"] is False
    detail = check_problem(client.post("/api/search", json={"sentence": "blue", "video_ids": ["no"]}), 404)
    assert detail == "The index does not hold the video 'no'."


def test_search_filters_by_duration_and_folder(client: TestClient, served: Path) -> None:
    def found(**filters: Any) -> set[str]:
        hits = client.post("/api/search", json={"sentence": "red", "k": 100, **filters}).json()["hits"]
        return {hit["video_id"] for hit in hits}

    assert found(min_duration_seconds=7) == set()
    assert found(max_duration_seconds=5.9) == set()
    assert len(found(min_duration_seconds=5, max_duration_seconds=7)) == 6
    assert len(found(folder=str(served / "videos"))) == 6
    assert found(folder=str(served / "elsewhere")) == set()
    assert found(tag="none") == set()
    assert found(folder=str(served / "videos"), video_ids=["plain"]) == {"plain"}


def test_similar_finds_other_moments(client: TestClient) -> None:
    body = {"video_id": "plain", "start_seconds": 0.5, "end_seconds": 2.5, "k": 5}
    content = client.post("/api/similar", json=body).json()
    assert content.keys() == {"found", "confidence", "took_seconds", "hits", "relevance"}
    assert content["hits"]
    for hit in content["hits"]:
        assert hit["video_id"] != "plain" or hit["end_seconds"] <= 0.5 or hit["start_seconds"] >= 2.5
    check_problem(client.post("/api/similar", json=body | {"video_id": "no"}), 404)
    check_problem(client.post("/api/similar", json=body | {"end_seconds": 0.1}), 422)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sentence": ""},
        {"sentence": "   "},
        {"sentence": "?!"},
        {"sentence": "red", "k": 0},
        {"sentence": "red", "k": 101},
        {"sentence": "red", "unknown": 1},
        {"sentence": "x" * 501},
        {"sentence": None},
        {"sentence": "red", "video_ids": "plain"},
        {"sentence": "red", "min_duration_seconds": -1},
        {"sentence": "red", "k": True},
        {"sentence": "red", "k": "5"},
        {"sentence": "red", "after": False},
        {"sentence": "red", "max_duration_seconds": True},
        {"sentence": "red", "folder": "a\0b"},
        {"sentence": True},
        [],
    ],
    ids=str,
)
def test_a_question_that_is_not_valid_is_refused_in_a_sentence(client: TestClient, body: Any) -> None:
    assert check_problem(client.post("/api/search", json=body), 422).endswith(".")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"sentence": NaN}', b'"red"', b"[" * 50_000, b""])
def test_a_malformed_body_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post("/api/search", content=content, headers={"content-type": "application/json"})
    check_problem(response, response.status_code)
    assert response.status_code in (400, 422)


@pytest.mark.parametrize("number", ["true", "NaN", "Infinity", "-Infinity", "1e999", '"1"', "null"])
def test_what_is_no_number_is_refused(client: TestClient, number: str) -> None:
    kind = {"content-type": "application/json"}
    for field in ("start_seconds", "end_seconds", "k"):
        values = {"video_id": '"plain"', "start_seconds": "0", "end_seconds": "1", "k": "3", field: number}
        content = "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"
        check_problem(client.post("/api/similar", content=content, headers=kind), 422)
    for query in (
        f"/thumbnails/plain?t={number}",
        f"/api/videos?limit={number}",
        f"/api/videos?offset={number}",
    ):
        check_problem(client.get(query.replace('"', "%22")), 422)


def test_a_folder_that_is_a_loop_of_links_is_refused(own: Path, client_of: Callable[..., TestClient]) -> None:
    (own / "loop").symlink_to(own / "loop")
    body = {"sentence": "red", "folder": str(own / "loop" / "x")}
    check_problem(client_of(own).post("/api/search", json=body), 422)


def test_head_is_answered_wherever_get_is(client: TestClient) -> None:
    paths = (
        "/", "/healthz", "/metrics", "/openapi.json", "/static/index.html", "/api/videos", "/api/videos/plain",
        "/api/examples", "/api/jobs", "/media/plain", "/thumbnails/plain?t=1",
    )  # fmt: skip
    for path in paths:
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path
    for path in ("/api/videos/none", "/api/jobs/none", "/media/none", "/nothing"):
        assert client.head(path).status_code == 404, path
    assert client.head("/api/search").status_code == 405


def test_half_a_surrogate_pair_breaks_nothing(client: TestClient) -> None:
    fields: tuple[dict[str, Any], ...] = ({"video_ids": ["\ud800"]}, {"folder": "\udc80"}, {"tag": "\ud800"})
    for more in ({"sentence": "red \ud800"}, *fields):
        body = json.dumps({"sentence": "red"} | more)
        response = client.post("/api/search", content=body, headers={"content-type": "application/json"})
        check_problem(response, response.status_code)
        assert response.status_code < 500


def test_videos_are_listed_in_pages_newest_first_and_found_by_part_of_their_id(
    client: TestClient, served: Path
) -> None:
    first = client.get("/api/videos", params={"limit": 4}).json()
    rest = client.get("/api/videos", params={"offset": 4}).json()
    assert first["total"] == rest["total"] == 6
    assert [len(page["videos"]) for page in (first, rest)] == [4, 2]
    ids = [video["video_id"] for page in (first, rest) for video in page["videos"]]
    oldest = client.get("/api/videos", params={"sort": "oldest"}).json()["videos"]
    assert ids[::-1] == [video["video_id"] for video in oldest]
    assert tuple(ids[::-1]) == ClipIndex.open(served / "index").video_ids
    assert client.get("/api/videos", params={"offset": 6}).json() == {"total": 6, "videos": []}
    found = client.get("/api/videos", params={"search": "KITCHEN"}).json()
    assert (found["total"], found["videos"][0]["video_id"]) == (1, "kitchen/monday")
    assert found["videos"][0]["media_url"] == "/media/kitchen%2Fmonday"
    for query in (
        {"limit": 0},
        {"limit": 201},
        {"offset": -1},
        {"offset": "x"},
        {"search": "x" * 201},
        {"sort": "x"},
    ):
        check_problem(client.get("/api/videos", params=query), 422)


@pytest.mark.parametrize("video_id", ["kitchen/monday", ODD_ID])
def test_ids_may_hold_slashes_and_any_character(
    client: TestClient, quoted: Callable[[str], str], video_id: str
) -> None:
    video = client.get(f"/api/videos/{quoted(video_id)}").json()
    assert video["video_id"] == video_id
    assert client.get(video["media_url"]).content[4:8] == b"ftyp"
    assert client.get(video["thumbnail_url"]).status_code == 200


def test_examples_are_sentences_about_videos_of_the_index(client: TestClient) -> None:
    sentences = client.get("/api/examples").json()["sentences"]
    assert sentences
    assert all(sentence.startswith("the picture is ") for sentence in sentences)
    assert len(set(sentences)) == len(sentences)


def test_a_thumbnail_shows_its_time_and_any_time_is_moved_into_the_video(client: TestClient) -> None:
    def colour(seconds: Any) -> tuple[int, ...]:
        response = client.get("/thumbnails/plain", params={"t": seconds})
        assert response.status_code == 200, response.text
        picture = Image.open(io.BytesIO(response.content))
        assert picture.size == (320, 240)
        pixel = picture.getpixel((310, 10))
        assert isinstance(pixel, tuple)
        return pixel

    blue, red = colour(1), colour(5)
    assert blue[2] > 150 > blue[0]
    assert red[0] > 150 > red[2]
    assert colour(-5) == colour(0)
    assert colour(1e9)[0] > 150
    for bad in ("nan", "inf", "x"):
        check_problem(client.get("/thumbnails/plain", params={"t": bad}), 422)


def test_thumbnails_are_kept_within_their_bound(own: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(own, limits=Limits(thumbnail_cache_bytes=8000))
    for step in range(30):
        assert client.get("/thumbnails/plain", params={"t": step / 10}).status_code == 200
        kept = [file.stat().st_size for file in (own / "cache").glob("*.jpg")]
        assert sum(kept) <= 8000
    assert kept
    again = client.get("/thumbnails/plain", params={"t": 2.9}).content
    assert again in [file.read_bytes() for file in (own / "cache").glob("*.jpg")]


def test_a_video_whose_file_is_gone_or_damaged_is_a_problem_and_not_a_crash(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own)
    (own / "videos" / "v2.mp4").unlink()
    (own / "videos" / "v3.mp4").write_bytes(b"no video at all")
    check_problem(client.get("/media/plain"), 404)
    check_problem(client.get("/thumbnails/plain?t=1"), 404)
    check_problem(client.get("/thumbnails/grey?t=1"), 404)
    assert client.get("/media/grey").status_code == 200
    assert client.post("/api/search", json={"sentence": "red", "k": 100}).status_code == 200


def test_health_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json()["videos"] == 6
    client.get("/media/nothing/here")
    text = client.get("/metrics").text
    assert 'dciml_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert 'route="/media/{video_id:path}",status="404"' in text
    assert "nothing" not in text
    assert "dciml_videos 6.0" in text


def test_page_static_files_and_the_rest(client: TestClient) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/static/index.html").status_code == 200
    check_problem(client.get("/nothing"), 404)
    check_problem(client.get("/static/nothing.js"), 404)
    check_problem(client.put("/api/search"), 405)


def test_openapi_describes_every_route_with_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert {
        "/api/search", "/api/similar", "/api/examples", "/api/videos", "/api/videos/{video_id}", "/api/jobs",
        "/api/jobs/{job_id}", "/media/{video_id}", "/thumbnails/{video_id}", "/healthz", "/metrics",
    } <= document["paths"].keys()  # fmt: skip
    schemas = document["components"]["schemas"]
    assert schemas["SearchRequest"]["examples"][0]["sentence"]
    assert schemas["SearchAnswer"]["examples"][0]["hits"]


def test_every_answer_tells_the_browser_to_trust_only_this_server(client: TestClient) -> None:
    for path in ("/", "/static/index.html", "/api/videos", "/media/plain", "/nothing", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-frame-options"] == "DENY", path
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["cross-origin-resource-policy"] == "same-origin", path
        assert "access-control-allow-origin" not in headers, path
