"""Spans: seconds and unit time, and overlap.

A span is the last axis of an array, (..., 2). All functions take and return NumPy arrays; the few that
training needs on tensors are in `dciml.method`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def to_seconds(spans_unit: ArrayLike, duration_seconds: ArrayLike) -> FloatArray:
    """Unit-time spans (..., 2) times durations (...) broadcast over the last axis.

    >>> to_seconds([[0.25, 0.5]], [60.0]).tolist()
    [[15.0, 30.0]]
    """
    durations = np.asarray(duration_seconds, dtype=np.float64)[..., None]
    seconds: FloatArray = np.asarray(spans_unit, dtype=np.float64) * durations
    return seconds


def temporal_iou(pred: ArrayLike, target: ArrayLike) -> FloatArray:
    """Intersection over union of every pair of spans: (pred, 2) and (target, 2) → (pred, target).

    Returns: values in [0, 1]; 0 for disjoint spans and where either span is empty.
    Raises:
        ValueError: a span ends before it starts, or the last axis is not 2.

    >>> temporal_iou([[0.0, 0.5]], [[0.0, 1.0], [0.5, 1.0]]).tolist()
    [[0.5, 0.0]]
    """
    a, b = _checked(pred), _checked(target)
    start = np.maximum(a[:, None, 0], b[None, :, 0])
    end = np.minimum(a[:, None, 1], b[None, :, 1])
    intersection = np.clip(end - start, 0.0, None)
    length_a, length_b = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    union = length_a[:, None] + length_b[None, :] - intersection
    iou: FloatArray = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return iou


def _checked(spans: ArrayLike) -> FloatArray:
    array = np.asarray(spans, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"spans must have the shape (n, 2), not {array.shape}")
    if (array[:, 1] < array[:, 0]).any():
        bad = int(np.flatnonzero(array[:, 1] < array[:, 0])[0])
        raise ValueError(f"span {bad} ends before it starts: {array[bad].tolist()}")
    return array
