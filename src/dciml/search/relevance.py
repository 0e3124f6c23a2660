"""How well each clip fits, for a timeline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Relevance = NDArray[np.float32]


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


def relevance_over_time(
    clip_spans: Sequence[FloatArray], rows: Sequence[Relevance], duration_seconds: float
) -> Relevance:
    """The relevance of clips as one timeline of the whole video, in equal parts about as long as a clip.

    A part shows the best of the clips that it shares half of itself, or of the clip, with; 0 where there is none. So
    the best clip is always seen, and where windows overlap the better one counts.

    Args:
        clip_spans: of a video, or of each window of a long one, when its clips are: (S, 2) seconds each.
        rows: the relevance of these clips, (S,) each.

    >>> windows = [np.array([[0.0, 2.0], [2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 6.0]])]
    >>> relevance_over_time(windows, [np.array([0.0, 1.0]), np.array([0.5, 0.25])], 8.0).tolist()
    [0.0, 1.0, 0.25, 0.0]
    """
    clip_seconds = min(float(spans[-1, 1] - spans[0, 0]) / len(spans) for spans in clip_spans)
    num_parts = len(rows[0])
    if len(rows) > 1:
        num_parts = max(1, math.ceil(duration_seconds / max(clip_seconds, 1e-9) - 1e-6))
    parts, length = np.zeros(num_parts, dtype=np.float32), duration_seconds / num_parts
    for spans, row in zip(clip_spans, rows, strict=True):
        first = min(int(spans[0, 0] / length), num_parts - 1)
        last = min(math.ceil(spans[-1, 1] / length), num_parts)
        starts = np.arange(first, last)[:, None] * length
        shared = np.minimum(starts + length, spans[:, 1]) - np.maximum(starts, spans[:, 0])
        half = 0.5 * np.minimum(length, spans[:, 1] - spans[:, 0])
        shown = np.where((shared > 0) & (shared >= half - 1e-9), row, 0.0).max(axis=1)
        parts[first:last] = np.maximum(parts[first:last], shown)
    return parts
