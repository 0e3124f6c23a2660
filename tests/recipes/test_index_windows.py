"""Long videos from a store to an index, into it, and out of it again; and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

import dciml.model_folder
from dciml.cli import index as index_commands
from dciml.config import AnswerConfig, RunConfig, dump_config
from dciml.errors import DataError
from dciml.features.long_videos import WindowRule, parse_window, whole_id
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.files import write_json, write_text
from dciml.index import ClipIndex
from dciml.model_folder import Model, windows_for
from dciml.recipes.index import add_videos, build_index, remove_videos
from dciml.recipes.inspect import inspect
from dciml.search.engines import Grounding
from dciml.search.searcher import Searcher

WIDTH, NUM_CLIPS = 8, 4


class MeanEngine:
    """A clip's vector is the mean of its rows."""

    fingerprint, num_clips, vector_width = "mean engine", NUM_CLIPS, WIDTH

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        rows = (store.rows(video_id).astype(np.float32) for video_id in video_ids)
        return np.array([[part.mean(axis=0) for part in np.array_split(some, NUM_CLIPS)] for some in rows])

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        return np.array([np.eye(WIDTH)[len(sentence.split())] for sentence in sentences], dtype=np.float32)

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        return Grounding(np.tile([0.0, 0.5], (len(sentences), 1, 1)), np.full((len(sentences), 1), -1.0))


def make_store(path: Path, *names: str) -> Path:
    """Videos of 600 s whose names begin with `film`, others of 50 s; the former point along axis 3 at 400–420 s."""
    with FeatureStoreWriter(path, StoreManifest("enc", WIDTH, 1.0)) as writer:
        for name in names:
            length = 600 if name.startswith("film") else 50
            rows = np.tile(0.1 * np.eye(WIDTH)[0], (length, 1))
            rows[400:420] = np.eye(WIDTH)[3]
            writer.append(name, rows, float(length), f"/videos/{name}.mp4")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (tmp_path / "model").mkdir()
    return Model(
        tmp_path / "model",
        "fake",
        MeanEngine(),
        AnswerConfig(candidates="windows"),
        "enc",
        windows=WindowRule(60.0, 30.0),
    )


@pytest.fixture
def index(tmp_path: Path, model: Model) -> ClipIndex:
    return build_index(model, make_store(tmp_path / "store", "film", "clip"), tmp_path / "index")


def test_a_long_video_is_indexed_as_windows_and_a_short_one_whole(index: ClipIndex) -> None:
    windows = [window for window in map(parse_window, index.video_ids) if window is not None]
    assert len(windows) == 19
    assert index.video_ids[-1] == "clip"
    assert {window.video_id for window in windows} == {"film"}
    assert index.durations_seconds.tolist() == [60.0] * 19 + [50.0]
    assert {index.video(window.window_id).title for window in windows} <= {"film", *index.video_ids}


def test_what_happens_is_found_in_the_time_of_the_long_video(index: ClipIndex, model: Model) -> None:
    searcher = Searcher(model.engine, index, FeatureStore.open(index.store_path()), model.answer)
    (hit,) = searcher.search("three words here", 1)
    assert hit.video_id == "film"
    assert (hit.start_seconds, hit.end_seconds) == pytest.approx((400, 420), abs=15)


def test_a_model_that_never_splits_indexes_videos_whole(tmp_path: Path, model: Model) -> None:
    store = make_store(tmp_path / "store", "film", "clip")
    assert build_index(replace(model, windows=None), store, tmp_path / "index").video_ids == ("film", "clip")


def test_adding_splits_and_adds_nothing_twice_whatever_the_windows(
    tmp_path: Path, index: ClipIndex, model: Model
) -> None:
    before = index.video_ids
    store = make_store(tmp_path / "more", "film", "film2", "clip", "clip2")
    assert add_videos(index, replace(model, windows=WindowRule(100.0, 0.0)), store) == 2
    assert index.video_ids[: len(before)] == before
    assert [whole_id(name) for name in index.video_ids[len(before) :]] == ["film2"] * 6 + ["clip2"]
    assert add_videos(index, model, store) == 0


def test_removing_a_long_video_removes_all_its_windows(index: ClipIndex) -> None:
    with pytest.raises(DataError, match="does not hold"):
        remove_videos(index, ["film", "film3"])
    assert len(index) == 20
    assert remove_videos(index, ["film"]) == 1
    assert index.video_ids == ("clip",)


def test_inspection_counts_whole_videos(tmp_path: Path, model: Model) -> None:
    build_index(model, make_store(tmp_path / "store", "film", "clip"), tmp_path / "index")
    found = inspect(tmp_path / "index").to_json()
    assert found["index"]["videos"] == 2
    assert found["index"]["with_windows_of_long_videos"] == 20
    assert found["durations"] == {
        "min_seconds": 50.0, "median_seconds": 325.0, "max_seconds": 600.0, "total_seconds": 650.0,
    }  # fmt: skip
    assert found["features"]["videos_without_features"] == 0


def test_the_commands_take_the_length_of_windows(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dciml.model_folder, "load_model", lambda *_, **__: model)
    app = typer.Typer()
    index_commands.register(app)
    store, out = make_store(tmp_path / "store", "film", "clip"), tmp_path / "index"

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    made = run("index", str(model.folder), str(store), "--out", str(out), "--window-seconds", "200")
    assert "2 videos (6 with windows of long ones) indexed" in made
    more = make_store(tmp_path / "more", "film2")
    added = run("index-add", str(out), str(more), "--window-seconds", "0")
    assert "1 video added, 3 videos (7 with windows of long ones) in all" in added
    assert "film2" in ClipIndex.open(out)
    assert "1 video removed, 2 videos left" in run("index-remove", str(out), "film")


def test_windows_suit_what_the_model_was_trained_on(tmp_path: Path) -> None:
    assert windows_for(tmp_path) == WindowRule(120.0, 60.0)  # nothing is known
    write_json(tmp_path / "run.json", {"trained_on": {"max_seconds": 44.0}})
    assert windows_for(tmp_path) == WindowRule(44.0, 22.0)
    config = RunConfig.model_validate(
        {
            "name": "n",
            "data": {"folder": "d"},
            "long_videos": {"window_seconds": 30.0, "overlap_seconds": 5.0},
        }
    )
    write_text(tmp_path / "config.yaml", dump_config(config))
    assert windows_for(tmp_path) == WindowRule(30.0, 5.0)
