"""Windows of long videos: where they lie, and that their rows are those of the whole video."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.long_videos import (
    Window,
    WindowedStore,
    WindowRule,
    long_windows,
    parse_window,
    split_long,
    whole_id,
    windows_of,
)
from dciml.features.row_times import RowTimes
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest


def make_store(
    path: Path, rows: int, duration_seconds: float, rate: float | None = 2.0, name: str = "film"
) -> WindowedStore:
    """A store of one video whose row i is (i, i, i), and of a short one before it."""
    with FeatureStoreWriter(path, StoreManifest("enc", 3, rate)) as writer:
        writer.append("before", np.full((5, 3), -1.0), 2.5)
        writer.append(
            name, np.repeat(np.arange(rows)[:, None] % 2048, 3, axis=1), duration_seconds, "film.mp4"
        )
    return WindowedStore.of(FeatureStore.open(path))


def test_a_long_video_becomes_equal_windows_to_its_very_end(tmp_path: Path) -> None:
    store = make_store(tmp_path, 401, 200.3)
    names = windows_of(store, "film", WindowRule(60.0, 30.0))
    assert names == (
        "film#t=0,60", "film#t=28,88", "film#t=56,116", "film#t=84.5,144.5", "film#t=112.5,172.5",
        "film#t=140.5,200.3",
    )  # fmt: skip
    assert store.rows(names[1])[[0, -1], 0].tolist() == [56, 175]
    assert store.rows(names[-1])[[0, -1], 0].tolist() == [281, 400]
    assert store.duration_seconds(names[-1]) == pytest.approx(59.8)
    assert store.num_rows(names[0]) == 120
    assert store.source(names[0]) == "film.mp4"


def test_a_video_of_up_to_one_and_a_half_windows_stays_whole(tmp_path: Path) -> None:
    store = make_store(tmp_path, 180, 90.0)
    assert windows_of(store, "film", WindowRule(60.0, 30.0)) == ("film",)
    assert len(windows_of(store, "film", WindowRule(59.0, 30.0))) > 1
    assert windows_of(store, "film", None) == ("film",)
    assert split_long(store, ["film", "before"], WindowRule(40.0, 0.0)) == [
        "film#t=0,40", "film#t=25,65", "film#t=50,90", "before",
    ]  # fmt: skip
    assert list(long_windows(store, ["film", "before", "film"], WindowRule(40.0, 0.0))) == ["film"]


@settings(deadline=None, max_examples=12)
@given(
    duration=st.floats(0.6, 12_000),
    rate=st.one_of(st.none(), st.floats(0.05, 30)),
    window=st.floats(5, 600),
    overlap=st.floats(0, 0.9),
)
def test_windows_cover_the_video_overlap_enough_and_hold_its_rows(
    tmp_path_factory: pytest.TempPathFactory,
    duration: float,
    rate: float | None,
    window: float,
    overlap: float,
) -> None:
    rows = max(1, int(np.ceil(duration * (rate or 1.3))))
    store = make_store(tmp_path_factory.mktemp("store"), rows, duration, rate)
    rule = WindowRule(window, overlap * window)
    names = windows_of(store, "film", rule)
    whole = store.rows("film")
    if names == ("film",):
        assert duration <= 1.5 * window or rows * window <= duration * 1.5
        return
    found = [parse_window(name) for name in names]
    assert all(w is not None and whole_id(name) == "film" for w, name in zip(found, names, strict=True))
    spans = [(w.start_seconds, w.end_seconds) for w in found if w is not None]
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(duration, abs=2e-3)
    row_seconds = duration / rows * 1.01 + (1.01 / rate if rate else 0) + 2e-3
    for (start, end), (following, _) in pairwise(spans):
        assert following > start
        assert end - following >= rule.overlap_seconds - 2 * row_seconds
    seen = 0
    for part in map(store.rows, names):
        first = place_of(part, whole)
        assert 0 <= first <= seen
        seen = first + len(part)
    assert seen == rows


def place_of(part: np.ndarray, whole: np.ndarray) -> int:
    """The row of `whole` at which the view `part` begins."""
    (start,), (base,) = (np.array([a.__array_interface__["data"][0]]) for a in (part, whole))
    return int(start - base) // whole.strides[0]


def test_rows_of_a_window_are_a_view_of_the_file(tmp_path: Path) -> None:
    store = make_store(tmp_path, 400, 200.0)
    rows = store.rows("film#t=10,20")
    assert rows[:, 0].tolist() == list(range(20, 40))
    assert np.shares_memory(rows, store.rows("film"))
    assert not rows.flags.writeable


def test_a_store_serves_only_windows_that_lie_in_a_video_of_its_own(tmp_path: Path) -> None:
    store = make_store(tmp_path, 400, 200.0)
    assert "film#t=0,60" in store
    assert store.video_ids == ("before", "film")
    for name in (
        "film#t=150,201",
        "film#t=60,60",
        "film#t=90,60",
        "other#t=0,60",
        "film#t=-1,60",
        "film#t=x,y",
    ):
        assert name not in store
        with pytest.raises(DataError, match="no features of the video"):
            store.rows(name)


def test_rows_are_where_the_rate_says_also_where_the_video_goes_on_or_ends_before_them(
    tmp_path: Path,
) -> None:
    early = make_store(tmp_path / "early", 100, 200.0, rate=2.0)  # the features end at 50 s
    assert early.rows("film#t=20,30")[:, 0].tolist() == list(range(40, 60))
    assert "film#t=100,150" not in early
    late = make_store(tmp_path / "late", 100, 20.0, rate=2.0)
    assert windows_of(late, "film", WindowRule(10.0, 5.0)) == ("film#t=0,10", "film#t=5,15", "film#t=10,20")
    assert late.row_times("film#t=5,15") == RowTimes(20, 0.5, 10.0)
    spread = make_store(tmp_path / "spread", 100, 200.0, rate=None)
    assert spread.row_times("film#t=100,150") == RowTimes(25, 2.0, 50.0)


def test_ids_hold_anything_and_a_window_of_a_window_is_none() -> None:
    for video_id in ("a b/ü#1.mp4", "x#t=1", "line\nbreak"):
        window = Window(video_id, 1.5, 30.001)
        assert parse_window(window.window_id) == window
    assert parse_window("talk#t=5,5") is None
    assert whole_id("talk#t=1,2") == "talk"


def test_a_video_with_the_id_of_a_window_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path, 400, 200.0, name="film#t=0,60")
    with pytest.raises(DataError, match="reads like a window"):
        windows_of(store, "film#t=0,60", None)


@pytest.mark.parametrize(("window", "overlap"), [(10.0, 10.0), (0.0, 0.0), (10.0, -1.0), (float("inf"), 1.0)])
def test_a_rule_that_cannot_be_is_refused(window: float, overlap: float) -> None:
    with pytest.raises(ValueError, match="must hold"):
        WindowRule(window, overlap)


def test_the_rule_of_two_settings() -> None:
    assert WindowRule.of(None) is None
    assert WindowRule.of(0.0) is None
    assert WindowRule.of(60.0) == WindowRule(60.0, 30.0)
    assert WindowRule.of(60.0, 10.0) == WindowRule(60.0, 10.0)
