"""Relevance of clips: range, order, and windows joined to a whole video."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dciml.features.row_times import RowTimes
from dciml.search.contrast import clip_relevance, relevance_over_time

CLIPS = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(-1, 1, width=32)
)


@settings(deadline=None, max_examples=80)
@given(clips=CLIPS, shift=st.floats(-1, 1, width=32))
def test_relevance_lies_between_0_and_1_in_the_order_of_the_scores(clips: np.ndarray, shift: float) -> None:
    found = clip_relevance(clips)
    assert found.shape == clips.shape
    assert (found >= 0).all()
    assert found.max() == 1
    assert found[np.unravel_index(clips.argmax(), clips.shape)] == 1
    order = np.argsort(clips, axis=None, kind="stable")
    assert (np.diff(found.ravel()[order]) >= 0).all()
    far = float(clips.std(axis=1).mean()) > 1e-3
    if far:
        np.testing.assert_allclose(clip_relevance(clips + np.float32(shift)), found, atol=1e-2)


def test_relevance_compares_over_the_videos_of_an_answer() -> None:
    found = clip_relevance(np.array([[0.2, 0.6], [0.2, 0.4]], dtype=np.float32))
    assert found[0, 0] == found[1, 0] < found[1, 1] < found[0, 1]


def test_clips_that_are_alike_in_each_video_leave_the_best_video() -> None:
    found = clip_relevance(np.array([[0.5, 0.5], [0.4, 0.4]], dtype=np.float32))
    assert found.tolist() == [[1, 1], [0, 0]]
    assert clip_relevance(np.empty((0, 4), dtype=np.float32)).shape == (0, 4)


@settings(deadline=None, max_examples=80)
@given(
    num_rows=st.integers(1, 80),
    rate=st.floats(0.2, 4),
    cut=st.floats(0, 0.99),
    seed=st.integers(0, 1000),
)
def test_a_timeline_shows_the_best_clip_where_its_rows_are(
    num_rows: int, rate: float, cut: float, seed: int
) -> None:
    row = np.random.default_rng(seed).uniform(size=8).astype(np.float32)
    times = RowTimes(num_rows, 1 / rate, (num_rows - cut) / rate)
    spans = times.clip_spans(8)
    found = relevance_over_time([spans], [row], times.duration_seconds)
    assert found.shape == (8,)
    seen = [clip for clip in range(8) if spans[clip, 1] > spans[clip, 0]]
    best = max(seen, key=lambda clip: float(row[clip]))
    part = int(found.argmax())
    assert found[part] == row[best]
    edges = np.array([part, part + 1]) * times.duration_seconds / 8
    same = [spans[clip] for clip in seen if row[clip] == row[best]]
    assert any(start < edges[1] and end > edges[0] for start, end in same)


@settings(deadline=None, max_examples=60)
@given(
    starts=st.lists(st.integers(0, 50), min_size=2, max_size=4, unique=True),
    row=arrays(np.float32, 8, elements=st.floats(0, 1, width=32)),
)
def test_the_better_window_counts_at_each_time(starts: list[int], row: np.ndarray) -> None:
    """Windows of 16 s begin on whole clips of 2 s, so that each part of the timeline is a clip of some of them."""
    starts = [2 * start for start in starts]
    spans = [start + RowTimes(8, 2.0, 16.0).clip_spans(8) for start in starts]
    duration = max(starts) + 16.0
    found = relevance_over_time(spans, [row] * len(spans), duration)
    assert len(found) == duration / 2
    for place, value in enumerate(found):
        seen = [row[place - start // 2] for start in starts if 0 <= place - start // 2 < 8]
        assert value == max(seen, default=0.0)


def test_features_that_end_before_their_video_say_nothing_of_the_rest() -> None:
    spans = RowTimes(8, 1.0, 16.0).clip_spans(4)
    found = relevance_over_time([spans], [np.ones(4, dtype=np.float32)], 16.0)
    assert found.tolist() == [1.0, 1.0, 0.0, 0.0]
