"""Pooling against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.features.pooling import frame_rows, l2_normalize, mean_pool


def slow_mean_pool(rows: np.ndarray, num_bins: int) -> np.ndarray:
    pooled = []
    for index in range(num_bins):
        first, end = index * len(rows) // num_bins, (index + 1) * len(rows) // num_bins
        pooled.append(
            np.mean([rows[i].astype(np.float64) for i in range(first, max(end, first + 1))], axis=0)
        )
    return np.array(pooled)


@settings(deadline=None, max_examples=60)
@given(num_rows=st.integers(1, 90), num_bins=st.integers(1, 40), seed=st.integers(0, 99))
def test_mean_pool_equals_the_slow_definition(num_rows: int, num_bins: int, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((num_rows, 3)).astype(np.float16)
    pooled = mean_pool(rows, num_bins)
    assert pooled.shape == (num_bins, 3)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, slow_mean_pool(rows, num_bins), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(num_rows=st.integers(1, 60), max_rows=st.integers(1, 40))
def test_frame_rows_keeps_short_videos_and_pools_long_ones(num_rows: int, max_rows: int) -> None:
    rows = np.random.default_rng(0).standard_normal((num_rows, 3)).astype(np.float16)
    frames = frame_rows(rows, max_rows)
    expected = rows if num_rows <= max_rows else slow_mean_pool(rows, max_rows)
    np.testing.assert_allclose(frames, expected, atol=1e-5)


def test_mean_pool_sums_in_float32() -> None:
    rows = np.full((4000, 1), 60000, dtype=np.float16)  # the sum overflows float16
    assert mean_pool(rows, 1)[0, 0] == pytest.approx(60000, rel=1e-3)


def test_pooling_leaves_its_input_alone() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for pooled in (mean_pool(rows, 3), frame_rows(rows, 5), l2_normalize(rows)):
        pooled += 1
    np.testing.assert_array_equal(rows, np.arange(6, dtype=np.float32).reshape(3, 2))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_l2_normalize_gives_unit_rows_at_any_scale(scale: float) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 5, 3)) * scale
    normalized = l2_normalize(rows)
    expected = rows / np.sqrt((rows**2).sum(-1, keepdims=True))
    np.testing.assert_allclose(normalized, expected, atol=1e-6)


def test_l2_normalize_keeps_zero_rows_zero() -> None:
    normalized = l2_normalize(np.array([[0.0, 0.0], [3.0, 4.0]]))
    np.testing.assert_allclose(normalized, [[0, 0], [0.6, 0.8]], atol=1e-6)


@pytest.mark.parametrize(("shape", "count"), [((0, 3), 2), ((3,), 2), ((3, 2), 0)])
def test_pooling_refuses_nothing_to_pool(shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="must"):
        mean_pool(np.zeros(shape), count)
    with pytest.raises(ValueError, match="must"):
        frame_rows(np.zeros(shape), count)
