"""Unit time, clips and seconds: against walking through the rows one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.features.pooling import mean_pool
from dciml.features.row_times import (
    RowTimes,
    clip_rows,
    clips_to_unit,
    span_seconds,
    unit_to_clips,
    whole_rows,
)
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest

NUM_ROWS, NUM_CLIPS = st.integers(1, 90), st.integers(1, 40)


@settings(deadline=None, max_examples=100)
@given(num_rows=NUM_ROWS, num_clips=NUM_CLIPS)
def test_a_clip_shows_the_rows_that_it_is_the_mean_of(num_rows: int, num_clips: int) -> None:
    rows = np.eye(num_rows)
    clips = mean_pool(rows, num_clips)
    for (first, end), clip in zip(clip_rows(num_rows, num_clips).tolist(), clips, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(clip), np.arange(first, end))


@settings(deadline=None, max_examples=100)
@given(num_rows=NUM_ROWS, rate=st.floats(0.1, 30), cut=st.floats(0, 0.99), num_clips=NUM_CLIPS)
def test_a_clip_lasts_from_its_first_row_to_its_last(
    num_rows: int, rate: float, cut: float, num_clips: int
) -> None:
    times = RowTimes(num_rows, 1 / rate, (num_rows - cut) / rate)
    seen = mean_pool(np.eye(num_rows), num_clips) > 0
    for (start, end), is_seen in zip(times.clip_spans(num_clips), seen, strict=True):
        held = np.flatnonzero(is_seen)
        assert start == pytest.approx(held[0] / rate)
        assert end == pytest.approx(min((held[-1] + 1) / rate, times.duration_seconds))


@settings(deadline=None, max_examples=100)
@given(num_rows=NUM_ROWS, num_clips=NUM_CLIPS, unit=st.floats(0, 1), step=st.floats(0, 1))
def test_clips_and_unit_time_go_back_and_forth(
    num_rows: int, num_clips: int, unit: float, step: float
) -> None:
    borders = np.arange(num_clips + 1)
    rows = borders * num_rows // num_clips
    is_row_border = np.diff(rows, prepend=-1) > 0
    places = unit_to_clips(clips_to_unit(borders, num_rows, num_clips), num_rows, num_clips)
    np.testing.assert_allclose(places[is_row_border], borders[is_row_border], atol=1e-9)
    later = min(1.0, unit + step)
    first, second = unit_to_clips([unit, later], num_rows, num_clips)
    assert 0 <= first <= second <= num_clips + 1e-9
    assert unit_to_clips([0.0, 1.0], num_rows, num_clips).tolist() == [0.0, num_clips]


@settings(deadline=None, max_examples=100)
@given(num_rows=NUM_ROWS, units=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_spans_of_few_rows_are_of_whole_rows(num_rows: int, units: list[float]) -> None:
    start, end = sorted(units)
    found = whole_rows([[start, end]], [num_rows], 32)[0]
    if num_rows >= 32:
        assert found.tolist() == [start, end]
        return
    borders = found * num_rows
    np.testing.assert_allclose(borders, borders.round(), atol=1e-9)
    assert 0 <= borders[0].round() < borders[1].round() <= num_rows
    assert abs(borders - np.array([start, end]) * num_rows).max() <= 1 + 1e-9


def test_many_videos_at_once_equal_one_by_one() -> None:
    clocks = [RowTimes(6, 1.0, 5.1), RowTimes(40, 0.5, 21.0)]
    spans = np.array([[0.0, 0.5], [0.25, 1.0]])
    covered, durations = (
        [getattr(c, name) for c in clocks] for name in ("covered_seconds", "duration_seconds")
    )
    together = span_seconds(spans, covered, durations)
    for clock, span, found in zip(clocks, spans, together, strict=True):
        np.testing.assert_array_equal(clock.seconds(span), found)


def test_a_store_says_when_its_rows_are(tmp_path: Path) -> None:
    for name, rate in (("timed", 2.0), ("untimed", None)):
        with FeatureStoreWriter(tmp_path / name, StoreManifest("x", 1, rate)) as writer:
            writer.append("a", np.ones((10, 1)), 4.8)
    assert FeatureStore.open(tmp_path / "timed").row_times("a") == RowTimes(10, 0.5, 4.8)
    assert FeatureStore.open(tmp_path / "untimed").row_times("a") == RowTimes(10, 0.48, 4.8)
