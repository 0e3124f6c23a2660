"""A moment is downloaded as a file: cut in a guarded process, within bounds, with plain refusals."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import pytest
from fastapi.testclient import TestClient

from dciml.service.settings import Limits

ODD = "/clips/a%20%22b%22%20%3Cb%3E%26%C3%BC"


def seconds_of(content: bytes) -> float:
    with av.open(io.BytesIO(content)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    return frames / 8.0


def test_a_moment_is_a_file_to_keep(client: TestClient) -> None:
    response = client.get("/clips/kitchen%2Fmonday?start=2&end=4&exact=true")
    assert response.status_code == 200
    assert response.headers["content-type"] == "video/mp4"
    name = response.headers["content-disposition"]
    assert name == "attachment; filename*=UTF-8''kitchen_monday_00m02s-00m04s.mp4"
    assert int(response.headers["content-length"]) == len(response.content)
    assert seconds_of(response.content) == pytest.approx(2.0, abs=0.2)
    copied = client.get("/clips/kitchen%2Fmonday?start=2&end=4").content
    assert seconds_of(copied) >= 1.9  # from the picture on that can be decoded alone


def test_any_id_makes_a_safe_name(client: TestClient) -> None:
    response = client.get(f"{ODD}?start=0.2&end=1.2")
    assert response.status_code == 200
    name = unquote(response.headers["content-disposition"].partition("''")[2])
    assert name == "a_b_b_ü_00m00s-00m01s.mp4"


def test_hits_say_where_their_clips_are(client: TestClient) -> None:
    content = client.post("/api/search", json={"sentence": "the picture is red", "k": 3}).json()
    ranks = [hit["video_rank"] for hit in content["hits"]]
    assert ranks[0] == 1
    assert sorted(set(ranks)) == list(range(1, len(set(ranks)) + 1))
    assert client.head(content["hits"][0]["clip_url"]).status_code == 200


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/clips/none?start=1&end=2", 404, "does not hold the video"),
        ("/clips/plain?start=2&end=1", 422, "is no moment of this video"),
        ("/clips/plain?start=7&end=9", 422, "between 0 and 6 seconds"),
        ("/clips/plain?start=1&end=100000", 422, "too long to cut here"),
        ("/clips/plain?start=-1&end=2", 422, "start"),
        ("/clips/plain?start=nan&end=2", 422, "start"),
        ("/clips/plain", 422, "start"),
    ],
)
def test_what_cannot_be_cut_is_refused(client: TestClient, address: str, status: int, said: str) -> None:
    response = client.get(address)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert said in response.json()["detail"]


@pytest.mark.slow
def test_a_broken_file_is_a_plain_refusal_and_leaves_nothing(
    own: Path, client_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    client = client_of(own)
    media = client.get("/media/plain").headers["content-disposition"].rpartition("''")[2]
    (own / "videos" / media).write_bytes(b"\0\0\0\x18ftypmp42" + b"\0damaged" * 500)
    response = client.get("/clips/plain?start=1&end=2")
    assert response.status_code == 422
    assert "cannot be cut out of its file" in response.json()["detail"]
    assert str(own) not in response.text
    assert client.get("/clips/third?start=1&end=2").status_code == 200  # the next one is cut
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_a_temporary_folder_that_cannot_be_used_is_told(
    own: Path, client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(own)
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full/nowhere")
    response = client.get("/clips/plain?start=1&end=2")
    assert response.status_code == 503
    assert "/dev/full" not in response.text


@pytest.mark.slow
def test_no_more_than_the_limit_are_cut_at_once(own: Path, client_of: Callable[..., Any]) -> None:
    client = client_of(own, limits=Limits(running_clips=0))
    response = client.get("/clips/plain?start=1&end=2")
    assert response.status_code == 503
    assert "moments to cut" in response.json()["detail"]
    assert response.headers["retry-after"]
