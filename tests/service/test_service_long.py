"""Long videos, which the index holds as windows, are whole videos over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fastapi.testclient import TestClient

from dciml.features.long_videos import WindowRule
from dciml.index import ClipIndex
from dciml.model_folder import load_model
from dciml.recipes.index import build_index

SENTENCE = "the picture is green"


def test_windows_are_never_seen(own: Path, served: Path, client_of: Callable[..., TestClient]) -> None:
    (own / "index").rename(own / "old-index")
    model = replace(load_model(own / "model"), windows=WindowRule(3.0, 1.0))
    build_index(model, own / "data", own / "index")
    assert len(ClipIndex.open(own / "index")) > 6
    client = client_of(own, media_roots=(served,))  # which the features' store names
    page = client.get("/api/videos").json()
    assert page["total"] == client.get("/healthz").json()["videos"] == 6
    assert {video["duration_seconds"] for video in page["videos"]} == {6.0}
    for words in ("t=0", "#", "3.0"):  # the times in the ids of windows are no part of a name
        assert client.get("/api/videos", params={"search": words}).json()["total"] == 0
    assert client.get("/api/videos", params={"search": "lain"}).json()["videos"][0]["video_id"] == "plain"
    assert all("#" not in video["video_id"] + video["title"] for video in page["videos"])

    answer = client.post("/api/search", json={"sentence": SENTENCE, "k": 100}).json()
    assert {hit["video_id"] for hit in answer["hits"]} == {video["video_id"] for video in page["videos"]}
    assert {hit["duration_seconds"] for hit in answer["hits"]} == {6.0}
    assert max(hit["end_seconds"] for hit in answer["hits"]) > 3.0
    assert answer["relevance"].keys() == {hit["video_id"] for hit in answer["hits"]}
    body = {"sentence": SENTENCE, "video_ids": ["plain", "grey"], "min_duration_seconds": 5}
    assert {hit["video_id"] for hit in client.post("/api/search", json=body).json()["hits"]} == {
        "plain",
        "grey",
    }
    span = {"video_id": "plain", "start_seconds": 4, "end_seconds": 6}
    assert client.post("/api/similar", json=span).json()["hits"]

    assert client.get("/media/plain").status_code == 200
    assert client.get("/thumbnails/plain?t=5").status_code == 200
    assert client.delete("/api/videos/plain").status_code == 204
    assert client.get("/api/videos").json()["total"] == 5
    assert not [video_id for video_id in ClipIndex.open(own / "index").video_ids if "plain" in video_id]
