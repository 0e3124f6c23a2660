"""Vectors in Milvus: always Milvus Lite, and a real server in the slow suite."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dciml.errors import DataError, ModelError
from dciml.index import ClipIndex, IndexOptions

pytest.importorskip("pymilvus", reason="pymilvus is not installed (extra milvus)")

# What the client's own dependencies warn of.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
CLIPS, WIDTH = 4, 16
GENERATOR = np.random.default_rng(0)
VECTORS = (GENERATOR.normal(size=(320, 1, WIDTH)) + 0.4 * GENERATOR.normal(size=(320, CLIPS, WIDTH))).astype(
    np.float32
)
QUERIES = GENERATOR.normal(size=(6, WIDTH)).astype(np.float32)
IDS = [f"v{number}" for number in range(len(VECTORS))]


def make_index(folder: Path, store: str | None) -> ClipIndex:
    index = ClipIndex.create(
        folder,
        num_clips=CLIPS,
        width=WIDTH,
        fingerprint="abc",
        model_folder=folder / "model",
        store_path=folder / "store",
        options=IndexOptions(store=store),
    )
    index.add(IDS[:200], VECTORS[:200], np.ones(200))
    index.add(IDS[200:], VECTORS[200:], np.full(120, 2.0))
    return index


def same_hits(one: ClipIndex, other: ClipIndex, k: int = 10, within: list[str] | None = None) -> None:
    """The same best videos, up to ties, with the same scores of all clips."""
    for first, second in zip(one.search(QUERIES, k, within), other.search(QUERIES, k, within), strict=True):
        np.testing.assert_allclose([m.score for m in first], [m.score for m in second], rtol=1e-4, atol=1e-5)
        clips = {match.video_id: match.clip_scores for match in second}
        limit = second[-1].score + 1e-4
        assert {m.video_id for m in first if m.score > limit} <= set(clips)
        for match in first:
            if match.video_id in clips:
                np.testing.assert_allclose(match.clip_scores, clips[match.video_id], rtol=1e-4, atol=1e-5)


def check_against_embedded(folder: Path, store: str) -> None:
    """The whole life of an index, beside one in its folder."""
    remote, local = make_index(folder / "remote", store), make_index(folder / "local", None)
    assert remote.video_ids == local.video_ids
    same_hits(remote, local)
    same_hits(remote, local, k=1)
    same_hits(remote, local, within=IDS[:300])
    same_hits(remote, local, within=IDS[10:290])
    same_hits(remote, local, within=["v3", "v5"])
    np.testing.assert_allclose(
        remote.pair_scores(QUERIES, IDS[5:11]), local.pair_scores(QUERIES, IDS[5:11]), rtol=1e-4, atol=1e-5
    )
    best = local.search(QUERIES, 2)[0]
    os.chdir("/")  # a file is found from any folder
    reader = ClipIndex.open(remote.path)
    for index in (remote, local):
        index.remove([best[0].video_id])
        index.add([best[1].video_id], np.ones((1, CLIPS, WIDTH)), [1.0], replaces=[best[1].video_id])
    same_hits(remote, local)
    assert reader.search(QUERIES[:1], 1)[0][0].video_id == best[0].video_id  # still its own state
    assert reader.refresh()
    for index in (remote, local):
        index.compact()
    same_hits(remote, local)
    same_hits(ClipIndex.open(remote.path), local)
    assert remote.verify() == []
    remote._backend._client.delete(remote._backend._name, filter=f"id == {CLIPS * 7 + 1}")  # type: ignore[attr-defined]
    assert remote.verify() == ["video 'v6': vectors of it are missing in the database"]
    with pytest.raises(DataError, match="milvus-backup"):
        remote.back_up(folder / "copy")
    remote.discard()
    with pytest.raises(ModelError, match="is not in the database"):
        ClipIndex.open(remote.path)


def test_lite_equals_the_embedded_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (extra milvus)")
    monkeypatch.chdir(tmp_path)
    check_against_embedded(tmp_path, "milvus:deep/vectors.db")
    assert (tmp_path / "deep" / "vectors.db").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A Milvus 2.3.5 server of its own on 127.0.0.1, with its files in a temporary folder."""
    milvus: Any = pytest.importorskip(
        "milvus", reason="the milvus server is not installed (extra milvus-server)"
    )
    started = milvus.MilvusServer()
    started.set_base_dir(str(tmp_path / "server"))
    for part in (
        "rootCoord",
        "proxy",
        "queryCoord",
        "queryNode",
        "indexCoord",
        "indexNode",
        "dataCoord",
        "dataNode",
    ):
        started.config.set(f"{part}.ip", "127.0.0.1")
    with contextlib.chdir(tmp_path):  # it changes the folder
        started.start()
        try:
            yield f"milvus:http://127.0.0.1:{started.listen_port}"
        finally:
            started.stop()


@pytest.mark.slow
def test_server_equals_the_embedded_index(tmp_path: Path, server: str) -> None:
    check_against_embedded(tmp_path, server)


def test_addresses_that_do_not_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names no store.*milvus:FILE"):
        make_index(tmp_path / "a", "faiss:here")
    make_index(tmp_path / "b", None)
    with pytest.raises(DataError, match="the vectors of this index are in its folder"):
        ClipIndex.open(tmp_path / "b", store="milvus:x.db")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9: Milvus does not answer"):
        make_index(tmp_path / "c", "milvus:http://127.0.0.1:9")


def test_the_token_goes_to_typed_addresses_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pymilvus

    asked: list[tuple[str, str]] = []

    def record(uri: str, token: str = "") -> None:
        asked.append((uri, token))
        raise ConnectionError("nobody is here")

    monkeypatch.setattr(pymilvus, "MilvusClient", record)
    monkeypatch.setenv("MILVUS_TOKEN", "s3cret")
    with pytest.raises(DataError):
        make_index(tmp_path / "a", "milvus:http://mine.example:19530")
    assert asked == [("http://mine.example:19530", "s3cret")]
    with pytest.raises(DataError, match=r"type it.*--store milvus:http://mine\.example"):
        ClipIndex.open(tmp_path / "a")
    assert asked[1:] == [("http://mine.example:19530", "")]
    with pytest.raises(DataError):
        ClipIndex.open(tmp_path / "a", store="milvus:http://other.example:1")
    assert asked[2:] == [("http://other.example:1", "s3cret")]


def test_an_index_cannot_have_files_made_elsewhere(tmp_path: Path) -> None:
    database = tmp_path / "deep" / "vectors.db"
    with contextlib.suppress(DataError):  # without Milvus Lite the catalogue is all that is made
        make_index(tmp_path / "a", f"milvus:{database}")
    shutil.rmtree(database.parent)
    with pytest.raises(DataError, match=r"is gone.*--store"):
        ClipIndex.open(tmp_path / "a")
    assert not database.parent.exists()
