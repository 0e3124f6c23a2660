from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.features.pooling import mean_pool
from dciml.search.contrast import contrast_windows, similarity_spread, span_contrast, with_floor


def slow_contrast(row: np.ndarray, start: int, end: int) -> float:
    inside, outside = row[start:end], np.concatenate([row[:start], row[end:]])
    if not len(outside):
        return 0.0
    length = end - start
    return float((inside.mean() - outside.mean()) * np.sqrt(length) * np.sqrt(1 - length / len(row)))


def slow_windows(
    row: np.ndarray, num_windows: int, max_iou: float, num_rows: int
) -> list[tuple[int, int, float]]:
    size = len(row)
    shown = [clip * num_rows // size for clip in range(size)]
    every = [
        (s, e, slow_contrast(row, s, e))
        for s in range(size)
        for e in range(s + 1, size + 1)
        if (s == 0 or shown[s] != shown[s - 1]) and (e == size or shown[e] != shown[e - 1])
    ]
    kept: list[tuple[int, int, float]] = []
    for start, end, score in sorted(every, key=lambda window: -window[2]):
        overlaps = [
            max(0, min(end, e) - max(start, s)) / (max(end, e) - min(start, s))
            if min(end, e) > max(start, s)
            else 0.0
            for s, e, _ in kept
        ]
        if all(overlap <= max_iou for overlap in overlaps):
            kept.append((start, end, score))
    return kept[:num_windows]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 12),
    num_windows=st.integers(1, 6),
    max_iou=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    num_rows=st.lists(st.integers(1, 30), min_size=3, max_size=3),
)
def test_windows_equal_the_slow_loop(
    seed: int, size: int, num_windows: int, max_iou: float, num_rows: list[int]
) -> None:
    rows = np.random.default_rng(seed).standard_normal((3, size))
    spans, contrast = contrast_windows(rows, num_windows, max_iou, num_rows)
    for row, row_spans, row_contrast, count in zip(rows, spans, contrast, num_rows, strict=True):
        expected = slow_windows(row, num_windows, max_iou, count)
        found = np.isfinite(row_contrast)
        assert found.sum() == len(expected)
        np.testing.assert_allclose(row_contrast[found], [score for *_, score in expected], atol=1e-5)
        in_rows = [(s * count // size, e * count // size) for s, e, _ in expected]
        np.testing.assert_allclose(row_spans[found] * count, in_rows, atol=1e-4)


def test_a_dark_opening_does_not_hide_the_event() -> None:
    """Three clips of eighteen fit far worse than all others; the event is six clips later."""
    similarities = np.full((1, 18), 0.2)
    similarities[0, :3], similarities[0, 8:12] = -0.6, 0.5
    plain, _ = contrast_windows(similarities, 1)
    lifted, _ = contrast_windows(with_floor(similarities, 0.4), 1)
    assert (plain[0, 0] * 18).round().tolist() == [3, 18]
    assert (lifted[0, 0] * 18).round().tolist() == [8, 12]


def test_a_floor_keeps_the_order_of_clips_and_all_that_is_above_it() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    lifted = with_floor(rows, 0.4)
    np.testing.assert_array_equal(lifted.argsort(axis=1), rows.argsort(axis=1))
    above = rows >= np.quantile(rows, 0.4, axis=1, keepdims=True)
    np.testing.assert_array_equal(lifted[above], rows[above])
    assert (lifted[~above] > rows[~above]).all()
    np.testing.assert_array_equal(with_floor(rows, 0.0), rows)


def test_windows_find_the_planted_events() -> None:
    row = np.zeros(32)
    row[4:9], row[20:23] = 1.0, 0.8
    spans, contrast = contrast_windows(row[None], 20, 0.5)
    assert (spans[0, 0] * 32).tolist() == [4, 9]
    assert [20, 23] in (spans[0] * 32).tolist()
    assert (np.diff(contrast[0]) <= 0).all()


def test_windows_of_alike_clips_have_no_contrast() -> None:
    spans, contrast = contrast_windows(np.full((2, 8), 0.3), 3)
    np.testing.assert_allclose(contrast, 0, atol=1e-6)
    assert (spans[..., 0] < spans[..., 1]).all()


def test_windows_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((10, 32))
    together = contrast_windows(rows, 5)
    monkeypatch.setattr("dciml.search.contrast.BLOCK_ROWS", 3)
    for number, row in enumerate(rows):
        alone = contrast_windows(row[None], 5)
        np.testing.assert_array_equal(alone[0][0], together[0][number])
        np.testing.assert_array_equal(alone[1][0], together[1][number])
    np.testing.assert_array_equal(contrast_windows(rows, 5)[0], together[0])


def test_span_contrast_of_whole_clips_is_that_of_windows() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 9))
    for num_rows in ([9, 9, 9, 9], [4, 9, 13, 100]):
        spans, contrast = contrast_windows(rows, 10, 0.9, num_rows)
        np.testing.assert_allclose(span_contrast(rows, spans, num_rows), contrast, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    start=st.floats(0, 1, width=32),
    end=st.floats(0, 1, width=32),
)
def test_span_contrast_counts_cut_clips_by_their_share(seed: int, start: float, end: float) -> None:
    start, end = min(start, end), max(start, end)
    row = np.random.default_rng(seed).standard_normal(6)
    borders = np.arange(7) / 6
    share = np.clip(np.minimum(end, borders[1:]) - np.maximum(start, borders[:-1]), 0, None) * 6
    length = share.sum()
    expected = 0.0
    if 1e-3 < length < 6 - 1e-3:
        inside, outside = row @ share / length, row @ (1 - share) / (6 - length)
        expected = (inside - outside) * np.sqrt(length) * np.sqrt(1 - length / 6)
        assert span_contrast(row[None], [[[start, end]]])[0, 0] == pytest.approx(expected, abs=1e-3)
    elif length in (0.0, 6.0):
        assert span_contrast(row[None], [[[start, end]]])[0, 0] == 0.0


def test_contrast_over_spread_is_a_correlation() -> None:
    row = np.random.default_rng(3).standard_normal(10)
    inside = np.zeros(10)
    inside[2:5] = 1
    ratio = span_contrast(row[None], [[[0.2, 0.5]]])[0, 0] / similarity_spread(row[None])[0]
    assert ratio == pytest.approx(np.corrcoef(row, inside)[0, 1], abs=1e-5)


@settings(deadline=None, max_examples=100)
@given(num_rows=st.integers(1, 120), num_clips=st.integers(1, 40), data=st.data())
def test_the_best_window_is_the_planted_row(num_rows: int, num_clips: int, data: st.DataObject) -> None:
    """Exactly that row, where a clip is no more than a row; else the rows of the clip that it is in."""
    planted = data.draw(st.integers(0, num_rows - 1))
    similarities = mean_pool(np.eye(num_rows)[:, [planted]], num_clips)[None, :, 0]
    spans, _ = contrast_windows(similarities, 1, num_rows=[num_rows])
    first, end = (spans[0, 0] * num_rows).round(9).tolist()
    assert first <= planted < planted + 1 <= end
    assert end - first <= max(1, -(-num_rows // num_clips))
