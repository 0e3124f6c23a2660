from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

import dciml.model_folder
from dciml.cli import index as index_commands
from dciml.cli import search as search_commands
from dciml.config import AnswerConfig
from dciml.errors import DataError, ModelError
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.index import ClipIndex, VideoFilter
from dciml.model_folder import Model
from dciml.recipes.index import add_videos, build_index, open_features, remove_videos
from dciml.search.engines import Grounding

WIDTH = 16


class RowsEngine:
    """A clip's vector is the mean of its rows; a sentence asks for the direction that its last word numbers."""

    num_clips, vector_width = 4, WIDTH

    def __init__(self, fingerprint: str = "rows engine") -> None:
        self.fingerprint = fingerprint
        self.batches: list[int] = []

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(len(video_ids))
        clips = [
            [part.astype(np.float32).mean(axis=0) for part in np.array_split(store.rows(video_id), 4)]
            for video_id in video_ids
        ]
        return np.array(clips, dtype=np.float32)

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        return np.array(
            [np.eye(WIDTH)[int(sentence.split()[-1])] for sentence in sentences], dtype=np.float32
        )

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        return Grounding(np.tile([0.0, 0.5], (len(sentences), 1, 1)), np.full((len(sentences), 1), -1.0))


def make_model(folder: Path, fingerprint: str = "rows engine") -> Model:
    (folder / "model").mkdir(exist_ok=True)
    return Model(folder / "model", "fake", RowsEngine(fingerprint), AnswerConfig(), "test-encoder")


def make_store(path: Path, first: int, count: int, encoder: str = "test-encoder") -> Path:
    """Video n is all zeros but for its third quarter, which points along axis n."""
    with FeatureStoreWriter(path, StoreManifest(encoder, WIDTH)) as writer:
        for number in range(first, first + count):
            rows = np.zeros((8, WIDTH), dtype=np.float32)
            rows[4:6, number] = 1.0
            writer.append(f"video{number}", rows, 80.0)
    return path


@pytest.fixture
def built(tmp_path: Path) -> ClipIndex:
    return build_index(make_model(tmp_path), make_store(tmp_path / "store", 0, 5), tmp_path / "index")


def test_build_index_holds_all_videos_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, done = make_model(tmp_path), []
    store = make_store(tmp_path / "store", 0, 5)
    monkeypatch.setattr("dciml.recipes.index.BATCH_VIDEOS", 2)
    monkeypatch.setattr("dciml.recipes.index.COMMIT_VIDEOS", 4)
    index = build_index(model, store, tmp_path / "deep" / "index", on_progress=lambda *of: done.append(of))
    assert index.video_ids == tuple(f"video{n}" for n in range(5))
    assert (index.model_folder(), index.store_path("video3")) == (tmp_path / "model", store)
    assert done == [(2, 5), (4, 5), (5, 5)]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["index"]


def test_build_index_of_a_split_takes_its_videos(tmp_path: Path, tiny_data: Path) -> None:
    model = make_model(tmp_path)
    assert len(build_index(model, tiny_data, tmp_path / "test", split="test")) == 8
    assert len(build_index(model, tiny_data, tmp_path / "all")) == 32
    with pytest.raises(DataError, match="there is no split 'val'"):
        build_index(model, tiny_data, tmp_path / "val", split="val")


def test_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    store, model = make_store(tmp_path / "store", 0, 2), make_model(tmp_path)
    monkeypatch.setattr(ClipIndex, "add", fail)
    with pytest.raises(OSError, match="disk full"):
        build_index(model, store, tmp_path / "index")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "store"]


def test_build_index_refuses_what_does_not_fit(tmp_path: Path, built: ClipIndex) -> None:
    model = make_model(tmp_path)
    with pytest.raises(DataError, match="something here already"):
        build_index(model, tmp_path / "store", built.path)
    other = make_store(tmp_path / "other", 0, 1, encoder="another encoder")
    with pytest.raises(ModelError, match="another encoder"):
        build_index(model, other, tmp_path / "new")
    with pytest.raises(DataError, match="has no splits"):
        build_index(model, tmp_path / "store", tmp_path / "new", split="test")
    with pytest.raises(DataError, match="no such folder"):
        open_features(tmp_path / "nothing", None)
    assert not (tmp_path / "new").exists()


def test_add_videos_adds_the_new_ones(tmp_path: Path, built: ClipIndex) -> None:
    model = make_model(tmp_path)
    assert add_videos(built, model, make_store(tmp_path / "more", 4, 3)) == 2
    assert add_videos(built, model, tmp_path / "more") == 0
    assert built.video_ids[-2:] == ("video5", "video6")
    assert built.store_path("video6") == tmp_path / "more"
    with pytest.raises(ModelError, match="built with another model"):
        add_videos(built, make_model(tmp_path, "retrained"), tmp_path / "more")


def test_remove_videos_counts(built: ClipIndex) -> None:
    assert remove_videos(built, ["video1", "video3"]) == 2
    with pytest.raises(DataError, match="'video1'"):
        remove_videos(built, ["video0", "video1"])
    assert built.video_ids == ("video0", "video2", "video4")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a command line with a fake model in the place of a trained one."""
    monkeypatch.setattr(dciml.model_folder, "load_model", lambda folder, device="cpu": make_model(tmp_path))
    app, runner = typer.Typer(), CliRunner()
    index_commands.register(app)
    search_commands.register(app)

    def run(*arguments: object) -> Any:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_commands_from_index_to_search(tmp_path: Path, command: Any) -> None:
    out, store = tmp_path / "index", make_store(tmp_path / "store", 0, 5)
    assert "5 videos indexed" in command("index", tmp_path / "model", store, "--out", out).output
    more = make_store(tmp_path / "more", 5, 1)
    assert "1 video added, 6 videos in all" in command("index-add", out, more).output
    assert "2 videos removed, 4 videos left" in command("index-remove", out, "video0", "video1").output
    hits = json.loads(command("search", out, "find 5", "--json", "-k", 3).output)["hits"]
    assert len(hits) == 3
    first = {key: hits[0][key] for key in ("rank", "video_id", "start_seconds", "end_seconds")}
    assert first == {"rank": 1, "video_id": "video5", "start_seconds": 40.0, "end_seconds": 60.0}
    table = command("search", out, "find 3", "--video", "video3").output
    assert "00:40–01:00" in table
    assert "video5" not in table


def test_search_command_takes_folders_that_moved(tmp_path: Path, command: Any, built: ClipIndex) -> None:
    (tmp_path / "store").rename(tmp_path / "store2")
    with pytest.raises(ModelError, match="--features"):
        command("search", built.path, "find 1")
    result = command("search", built.path, "find 1", "--features", tmp_path / "store2", "--json")
    assert json.loads(result.output)["hits"][0]["video_id"] == "video1"


def test_search_command_says_what_is_wrong(tmp_path: Path, command: Any, built: ClipIndex) -> None:
    with pytest.raises(DataError, match="the sentence is empty"):
        command("search", built.path, " ")
    with pytest.raises(DataError, match="does not hold the video 'video9'"):
        command("search", built.path, "find 1", "--video", "video9")
    with pytest.raises(DataError, match="not an index"):
        command("search", tmp_path / "store", "find 1")
    assert command("search", built.path, "find 1", "-k", 0).exit_code == 2


def test_index_keeps_file_tags_date_and_checksum(tmp_path: Path) -> None:
    film = tmp_path / "videos" / "a film.mp4"
    film.parent.mkdir()
    film.write_bytes(b"film")
    os.utime(film, (1e9, 1e9))
    with FeatureStoreWriter(
        tmp_path / "data" / "features", StoreManifest("test-encoder", WIDTH, 1.0)
    ) as writer:
        for name, source in (("near", "a film.mp4"), ("whole", str(film)), ("gone", "b.mp4"), ("none", None)):
            writer.append(name, np.ones((4, WIDTH)), 4.0, source)
    index = build_index(
        make_model(tmp_path), tmp_path / "data" / "features", tmp_path / "index", tags=["day"]
    )
    for name in ("near", "whole"):
        video = index.video(name)
        assert (video.media_path, video.title, video.tags, video.date_unix) == (
            str(film),
            "a film",
            ("day",),
            1e9,
        )
    assert [index.video(name).media_path for name in ("gone", "none")] == [None, None]
    checksums = {index.video(name).checksum for name in index.video_ids}
    assert len(checksums) == 1
    assert None not in checksums


def test_search_command_filters(tmp_path: Path, command: Any, built: ClipIndex) -> None:
    more = make_store(tmp_path / "more", 5, 2)
    command("index-add", built.path, more, "--tag", "new")
    hits = json.loads(command("search", built.path, "find 1", "--tag", "new", "--json").output)["hits"]
    assert {hit["video_id"] for hit in hits} == {"video5", "video6"}
    both = command("search", built.path, "find 1", "--tag", "new", "--video", "video6", "--json").output
    assert {hit["video_id"] for hit in json.loads(both)["hits"]} == {"video6"}
    assert json.loads(command("search", built.path, "find 1", "--min-duration", 80, "--json").output)["hits"]
    for options in (
        ["--min-duration", 81],
        ["--folder", tmp_path],
        ["--after", "2020-01-01"],
        ["--before", "2020-01-01"],
    ):
        with pytest.raises(DataError, match="no video of the index fits the filter"):
            command("search", built.path, "find 1", *options)


def test_index_add_replaces_changed_videos(tmp_path: Path, command: Any) -> None:
    out, store = tmp_path / "index", make_store(tmp_path / "store", 0, 3)
    command("index", tmp_path / "model", store, "--out", out)
    changed = tmp_path / "changed"
    with FeatureStoreWriter(changed, StoreManifest("test-encoder", WIDTH, 1.0)) as writer:
        writer.append("video0", FeatureStore.open(store).rows("video0"), 80.0)
        writer.append("video1", np.eye(WIDTH)[[9] * 8], 40.0)
    assert "0 videos added, 3 videos in all" in command("index-add", out, changed).output
    done = command("index-add", out, changed, "--replace", "--tag", "new").output
    assert "1 video added or replaced, 3 videos in all" in done
    index = ClipIndex.open(out)
    assert index.select(VideoFilter(tag="new")) == ("video1",)
    assert index.durations_seconds[index.places(["video1"])[0]] == 40.0
    hit = json.loads(command("search", out, "find 9", "--json", "-k", 1).output)["hits"][0]
    assert hit["video_id"] == "video1"


def test_upkeep_commands(tmp_path: Path, command: Any, built: ClipIndex) -> None:
    command("index-remove", built.path, "video0")
    assert "4 videos, compact" in command("index-compact", built.path).output
    assert "4 videos, whole" in command("index-verify", built.path).output
    assert "4 videos" in command("index-backup", built.path, tmp_path / "deep" / "copy").output
    (file,) = built.path.glob("*.vectors")
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    verified = command("index-verify", built.path)
    assert verified.exit_code == 1
    assert "video 'video1': its vectors do not match" in verified.output
    assert command("index-verify", tmp_path / "deep" / "copy").exit_code == 0
    hits = json.loads(command("search", tmp_path / "deep" / "copy", "find 3", "--json").output)["hits"]
    assert hits[0]["video_id"] == "video3"
    with pytest.raises(DataError, match="something here already"):
        command("index-backup", built.path, tmp_path / "deep" / "copy")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_commands_with_vectors_in_milvus(tmp_path: Path, command: Any) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (extra milvus)")
    out, database = tmp_path / "index", tmp_path / "vectors.db"
    store = make_store(tmp_path / "store", 0, 5)
    command("index", tmp_path / "model", store, "--out", out, "--store", f"milvus:{database}")
    assert not list(out.glob("*.vectors"))
    command("index-remove", out, "video1")
    for options in ([], ["--store", f"milvus:{database}"]):
        hits = json.loads(command("search", out, "find 3", "--json", *options).output)["hits"]
        assert hits[0]["video_id"] == "video3"
    with pytest.raises(DataError, match="milvus-backup"):
        command("index-backup", out, tmp_path / "copy")
