"""Relevance of clips: range, order, and windows joined to a whole video."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dciml.search.relevance import clip_relevance, joined_relevance

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


@settings(deadline=None, max_examples=60)
@given(
    starts=st.lists(st.floats(0, 50), min_size=1, max_size=4),
    row=arrays(np.float32, 8, elements=st.floats(0, 1, width=32)),
)
def test_joined_relevance_takes_the_best_window_at_each_time(starts: list[float], row: np.ndarray) -> None:
    spans = [(start, start + 16.0) for start in starts]
    duration = max(end for _, end in spans)
    joined = joined_relevance(spans, [row] * len(spans), duration)
    assert len(joined) == int(np.ceil(duration / 2.0 - 1e-6))
    for place, value in enumerate(joined):
        middle = (place + 0.5) * duration / len(joined)
        seen = [row[int((middle - start) // 2.0)] for start, end in spans if start <= middle < end]
        assert value == max(seen, default=0.0)
