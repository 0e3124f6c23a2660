"""Answers are at the seconds of their rows: row i of a known rate at i / rate, on every path to an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.config import AnswerConfig
from dciml.features.long_videos import WindowedStore, WindowRule, split_long
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.index import ClipIndex
from dciml.search.searcher import Searcher

PLANTED = "the planted row"


@dataclass(frozen=True)
class Film:
    """A video with one row that is what the sentence asks for."""

    num_rows: int
    duration_seconds: float
    row: int


def planted_searcher(
    engine_class: Any,
    folder: Path,
    rate: float | None,
    films: Sequence[Film],
    num_clips: int = 32,
    windows: WindowRule | None = None,
) -> Searcher:
    """A corpus of `film0`, `film1` … and another video."""
    engine = engine_class(width=3)
    engine.num_clips = num_clips
    engine.planted[PLANTED] = np.array([1, 0, 0], dtype=np.float32)
    names = [f"film{number}" for number in range(len(films))]
    with FeatureStoreWriter(folder / "store", StoreManifest("fake", 3, rate), commit_every=99) as writer:
        for name, film in zip(names, films, strict=True):
            rows = np.tile([0.0, 1.0, 0.0], (film.num_rows, 1))
            rows[film.row] = [1.0, 0.0, 0.0]
            writer.append(name, rows, film.duration_seconds)
        writer.append("other", np.tile([0.0, 0.0, 1.0], (5, 1)), 5.0)
    store = WindowedStore.of(FeatureStore.open(folder / "store"))
    index = ClipIndex.create(
        folder / "index",
        num_clips=num_clips,
        width=3,
        fingerprint=engine.fingerprint,
        model_folder=folder / "model",
        store_path=store.path,
    )
    ids = [*split_long(store, names, windows), "other"]
    index.add(ids, engine.fused_clips(store, ids), [store.duration_seconds(own) for own in ids])
    return Searcher(engine, index, store, AnswerConfig(candidates="windows", contrast_floor=0.0))


@settings(deadline=None, max_examples=6)
@given(rate=st.floats(0.1, 25), num_clips=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_the_answer_holds_the_planted_row_and_is_within_a_clip_of_it(
    fake_engine: Any, rate: float, num_clips: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    films = []
    for num_rows in rng.integers(2, 101, 40).tolist():
        films.append(Film(num_rows, (num_rows - rng.uniform(0, 0.9)) / rate, int(rng.integers(num_rows))))
    names = [f"film{number}" for number in range(len(films))]
    with TemporaryDirectory() as folder:
        searcher = planted_searcher(fake_engine, Path(folder), rate, films, num_clips)
        hits = [searcher.search(PLANTED, 1, within=[name])[0] for name in names]
        given = searcher.ground_given([PLANTED] * len(names), names)
    for film, hit, other in zip(films, hits, given, strict=True):
        assert (hit.start_seconds, hit.end_seconds) == (other[0].start_seconds, other[0].end_seconds)
        assert hit.start_seconds <= film.row / rate + 1e-9
        assert hit.end_seconds >= min((film.row + 1) / rate, film.duration_seconds) - 1e-9
        longest = max(1, math.ceil(film.num_rows / num_clips)) / rate
        assert hit.end_seconds - hit.start_seconds <= longest + 1e-9


@pytest.mark.parametrize("num_rows", [6, 75, 100])
def test_a_row_is_where_the_rate_says_whatever_the_length(
    fake_engine: Any, tmp_path: Path, num_rows: int
) -> None:
    """The video goes on for a while after its features: the rows are not stretched over it."""
    searcher = planted_searcher(fake_engine, tmp_path, 0.5, [Film(num_rows, num_rows * 2.5, num_rows - 2)])
    hit = searcher.search(PLANTED, 1)[0]
    assert hit.start_seconds <= 2 * (num_rows - 2) < 2 * (num_rows - 1) <= hit.end_seconds
    assert hit.end_seconds - hit.start_seconds <= 2 * math.ceil(num_rows / 32)


def test_rows_of_no_known_rate_are_spread_over_the_video(fake_engine: Any, tmp_path: Path) -> None:
    hit = planted_searcher(fake_engine, tmp_path, None, [Film(10, 25.0, 4)]).search(PLANTED, 1)[0]
    assert (hit.start_seconds, hit.end_seconds) == pytest.approx((10.0, 12.5))


@pytest.mark.parametrize("row", [0, 3, 157, 211, 499])
def test_a_window_of_a_long_video_has_the_seconds_of_its_rows(
    fake_engine: Any, tmp_path: Path, row: int
) -> None:
    """500 rows at 3 a second in a video of 166.5 s, in windows of 10 s: 30 rows, fewer than the 32 clips."""
    searcher = planted_searcher(
        fake_engine, tmp_path, 3.0, [Film(500, 166.5, row)], windows=WindowRule(10.0, 5.0)
    )
    hit = searcher.search(PLANTED, 1)[0]
    assert (hit.video_id, hit.start_seconds, hit.end_seconds) == (
        "film0",
        pytest.approx(row / 3, abs=2e-3),
        pytest.approx(min((row + 1) / 3, 166.5), abs=2e-3),
    )


def test_a_timeline_and_a_moment_as_the_query_use_the_same_seconds(fake_engine: Any, tmp_path: Path) -> None:
    searcher = planted_searcher(
        fake_engine, tmp_path, 1.0, [Film(10, 20.0, 4)]
    )  # the features end in the middle of the video
    shown = searcher.answer(PLANTED, 1).relevance["film0"]
    assert (np.flatnonzero(shown == 1) * 20 / 32).tolist() == pytest.approx([3.75, 4.375], abs=0.4)
    assert shown[16:].max() == 0
    elsewhere = searcher.similar("film0", 4.0, 5.0, 20).hits
    assert elsewhere[0].video_id == "other"
    assert all(hit.end_seconds <= 4 or hit.start_seconds >= 5 for hit in elsewhere if hit.video_id == "film0")
    assert searcher.similar("film0", 15.0, 18.0, 3).hits  # after the last row: asks with the last one


def test_rows_past_the_end_give_no_empty_hit(fake_engine: Any, tmp_path: Path) -> None:
    hits = planted_searcher(fake_engine, tmp_path, 1.0, [Film(40, 20.0, 30)]).search(
        PLANTED, 50, within=["film0"]
    )
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert all(hit.start_seconds < hit.end_seconds <= 20.0 for hit in hits)
