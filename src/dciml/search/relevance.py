"""How well each clip fits, for a timeline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def clip_relevance(clip_scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip scores of the videos of one answer as 0 … 1, alike for all of them: (K, S) → (K, S).

    1 is the best clip of the answer; a clip that scores less has exp(−difference / spread), where the spread is the
    usual standard deviation of the clips of one video: so a timeline shows which of its clips stand out.

    >>> clip_relevance(np.array([[0.5, 0.75, 0.5, 0.75], [0.25, 0.5, 0.25, 0.5]])).astype(float).round(3).tolist()
    [[0.135, 1.0, 0.135, 1.0], [0.018, 0.135, 0.018, 0.135]]
    """
    if not clip_scores.size:
        return np.zeros(clip_scores.shape, dtype=np.float32)
    below = clip_scores.astype(np.float64) - clip_scores.max()
    spread = max(float(clip_scores.std(axis=1, dtype=np.float64).mean()), 1e-9)
    return np.asarray(np.exp(below / spread), dtype=np.float32)


def joined_relevance(
    spans_seconds: Sequence[tuple[float, float]], rows: Sequence[NDArray[np.float32]], duration_seconds: float
) -> NDArray[np.float32]:
    """The relevance of windows as one of the whole video, in equal parts about as long as their clips.

    Where windows overlap the better one counts; what no window covers has 0.

    >>> joined_relevance([(0.0, 4.0), (2.0, 6.0)], [np.array([0.0, 1.0]), np.array([0.5, 0.25])], 8.0).tolist()
    [0.0, 1.0, 0.25, 0.0]
    """
    clip_seconds = min(
        (end - start) / len(row) for (start, end), row in zip(spans_seconds, rows, strict=True)
    )
    parts = np.zeros(max(1, math.ceil(duration_seconds / clip_seconds - 1e-6)), dtype=np.float32)
    middles = (np.arange(len(parts)) + 0.5) * duration_seconds / len(parts)
    for (start, end), row in zip(spans_seconds, rows, strict=True):
        inside = (middles >= start) & (middles < end)
        clips = ((middles[inside] - start) / (end - start) * len(row)).astype(np.int64)
        parts[inside] = np.maximum(parts[inside], row[clips])
    return parts
