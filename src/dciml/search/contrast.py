"""How well each clip of a video fits a sentence, and how much better a span fits than what lies around it.

The contrast of a span: how much better its clips fit the query than the clips outside.

contrast = (mean inside − mean outside) · sqrt(L) · sqrt(1 − L/S) for a span of L of the S clips; 0 for the whole
video, which has no outside. Up to sqrt(S) times the spread of the similarities it is the correlation between
"this clip fits" and "this clip is inside", so long and short spans compete fairly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.features import clips_to_unit, unit_to_clips
from dciml.spans import temporal_iou

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


def deviations_below(
    clip_scores: NDArray[np.float32],
    parts: Sequence[Sequence[tuple[int, FloatArray]]],
    spans: Sequence[tuple[float, float]],
) -> tuple[float, ...]:
    """How far the best clip of each moment lies below the best of them all, in standard deviations of all clip scores.

    Args:
        clip_scores: (K, S), of all videos and windows that were looked at.
        parts: of each moment, the rows of `clip_scores` that show its video, with when their clips are: (S, 2) seconds.
        spans: start and end of each moment, in the same seconds.

    >>> scores = np.array([[0.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    >>> times = np.array([[0.0, 2.0], [2.0, 4.0]])
    >>> [round(below, 3) for below in deviations_below(scores, [[(0, times)], [(1, times)]], [(2.0, 4.0), (0.0, 4.0)])]
    [0.0, 2.309]
    """
    best = []
    for own, (start, end) in zip(parts, spans, strict=True):
        inside = [clip_scores[row][(times[:, 0] < end) & (times[:, 1] > start)] for row, times in own]
        best.append(max((float(scores.max()) for scores in inside if scores.size), default=-np.inf))
    deviation = float(clip_scores.std(dtype=np.float64)) if clip_scores.size else 0.0
    top = max(best, default=0.0)
    return tuple(0.0 if score == top else (top - score) / max(deviation, 1e-9) for score in best)


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


def share_inside(
    clip_spans: Sequence[FloatArray],
    rows: Sequence[NDArray[np.float32]],
    start_seconds: float,
    end_seconds: float,
    scale: float,
) -> float:
    """How much of what speaks for the sentence in a video lies in a span: a share, 0 … 1.

    A clip speaks with exp(scale · score), and a clip that a border cuts by the share of it that is inside. With the
    scale of a calibration, and one clip of the video described, that is the probability that it is in the span.

    Args:
        clip_spans: of a video, or of each window of a long one, when its clips are: (S, 2) seconds each.
        rows: the scores of these clips, (S,) each.

    >>> spans = [np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0]])]
    >>> round(share_inside(spans, [np.log(np.array([1.0, 2.0, 1.0], dtype=np.float32))], 2.0, 5.0, 1.0), 3)
    0.625
    """
    spans = np.concatenate(clip_spans)
    scores = np.concatenate(rows).astype(np.float64)
    speaks = np.exp(scale * (scores - scores.max()))
    length = np.maximum(spans[:, 1] - spans[:, 0], 1e-9)
    inside = np.minimum(spans[:, 1], end_seconds) - np.maximum(spans[:, 0], start_seconds)
    covered = np.clip(inside / length, 0.0, 1.0)
    return float((speaks * covered).sum() / speaks.sum())


BELOW_FLOOR = np.float32(0.1)
"""The share of its distance to the floor that a similarity below it keeps."""
BLOCK_ROWS = 256  # the scores of all windows of a block stay in the processor's cache

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def contrast_windows(
    similarities: ArrayLike, num_windows: int, max_iou: float = 0.7, num_rows: ArrayLike | None = None
) -> tuple[Float64, Float32]:
    """The best windows of each row by contrast, kept apart from one another.

    A window is of whole clips, and begins and ends where a row of its video does: clips that show the same row, where
    there are fewer rows than clips, are in it or out of it together.

    Args:
        similarities: (N, S), of N (query, video) pairs.
        num_windows: how many windows a row (W); at most as many as there are, S(S + 1)/2.
        max_iou: a window is left out when its IoU with a better one, counted in clips, is above this.
        num_rows: (N,), feature rows of each video; None: S.
    Returns: spans in unit time, (N, W, 2), and their contrast, (N, W), best first. A row that has no W windows so
        far apart ends with empty spans of contrast −inf.

    >>> spans, contrast = contrast_windows([[0.0, 1.0, 1.0, 0.0]], 1)
    >>> spans.tolist(), contrast.round(3).tolist()
    ([[[0.25, 0.75]]], [[1.0]])
    """
    rows = np.asarray(similarities, dtype=np.float32)
    num_clips = rows.shape[1]
    counts = _counts(num_rows, len(rows), num_clips)
    windows = _all_windows(num_clips)
    penalty = _overlap_penalty(num_clips, float(max_iou))
    num_windows = min(num_windows, len(windows))
    chosen = np.empty((len(rows), num_windows), dtype=np.int64)
    contrast = np.empty((len(rows), num_windows), dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        scores = _window_scores(rows[block])
        for short in np.flatnonzero(counts[block] < num_clips).tolist():
            scores[short, _cuts_a_row(int(counts[start + short]), num_clips)] = -np.inf
        for place in range(num_windows):
            best = scores.argmax(axis=1)
            chosen[block, place] = best
            contrast[block, place] = np.take_along_axis(scores, best[:, None], axis=1)[:, 0]
            if place + 1 < num_windows:
                scores -= penalty[best]
    spans = clips_to_unit(windows[chosen], counts[:, None, None], num_clips)
    spans[np.isneginf(contrast)] = 0.0
    return spans, contrast


def span_contrast(
    similarities: ArrayLike, spans_unit: ArrayLike, num_rows: ArrayLike | None = None
) -> Float32:
    """The contrast of any spans; a clip that a border cuts counts by its covered share.

    Args:
        similarities: (N, S).
        spans_unit: (N, P, 2), start ≤ end, in [0, 1].
        num_rows: (N,), feature rows of each video; None: S.
    Returns: (N, P); 0 for an empty span and for the whole video.

    >>> span_contrast([[0.0, 1.0, 1.0, 0.0]], [[[0.25, 0.75], [0.0, 1.0], [0.5, 0.5]]]).round(3).tolist()
    [[1.0, 0.0, 0.0]]
    """
    rows = np.asarray(similarities, dtype=np.float32)
    num_clips = rows.shape[1]
    sums = _centred_sums(rows)
    counts = _counts(num_rows, len(rows), num_clips)
    borders = unit_to_clips(spans_unit, counts[:, None, None], num_clips).astype(np.float32)
    whole = np.clip(np.floor(borders), 0, num_clips - 1).astype(np.int64)
    flat = whole.reshape(len(rows), -1)
    before = np.take_along_axis(sums, flat, axis=1).reshape(whole.shape)
    after = np.take_along_axis(sums, flat + 1, axis=1).reshape(whole.shape)
    reached = before + (borders - whole) * (after - before)
    length = borders[..., 1] - borders[..., 0]
    contrast: Float32 = (reached[..., 1] - reached[..., 0]) * _length_factor(length, num_clips)
    return contrast


def with_floor(similarities: ArrayLike, share: float) -> Float32:
    """Similarities of which the lowest `share` of each row are drawn near their best: (N, S) → (N, S).

    How far a clip is from fitting says little of the moment, but a few clips that fit much worse than all others, a
    dark opening say, make "all but these" the span of the best contrast. What is below the quantile keeps a tenth of
    its distance, so that spans do not tie.

    >>> with_floor([[-8.0, 1.0, 2.0, 5.0, 3.0]], 0.5).round(3).tolist()
    [[1.0, 1.9, 2.0, 5.0, 3.0]]
    """
    rows = np.asarray(similarities, dtype=np.float32)
    if not share:
        return rows
    floor = np.quantile(rows, share, axis=1, keepdims=True).astype(np.float32)
    return np.where(rows < floor, floor + BELOW_FLOOR * (rows - floor), rows)


def similarity_spread(similarities: ArrayLike) -> Float32:
    """sqrt(S) times the standard deviation of each row: (N, S) → (N,). Contrast divided by it is in [−1, 1]."""
    rows = np.asarray(similarities, dtype=np.float32)
    spread: Float32 = rows.std(axis=1) * np.float32(np.sqrt(rows.shape[1]))
    return spread


def _counts(num_rows: ArrayLike | None, num_videos: int, num_clips: int) -> NDArray[np.int64]:
    counts = num_clips if num_rows is None else num_rows
    return np.broadcast_to(np.asarray(counts, dtype=np.int64), (num_videos,))


def _centred_sums(rows: Float32) -> Float32:
    """Sums of the first 0 … S similarities less their mean: (N, S + 1). The last is 0, so outside = −inside."""
    sums = np.zeros((len(rows), rows.shape[1] + 1), dtype=np.float32)
    np.cumsum(rows - rows.mean(axis=1, keepdims=True), axis=1, out=sums[:, 1:])
    return sums


def _length_factor(length: NDArray[np.floating], num_clips: int) -> Float32:
    """What turns a centred sum into a contrast: inside/L + inside/(S − L), times sqrt(L(1 − L/S))."""
    product = np.asarray(length, dtype=np.float64) * (num_clips - np.asarray(length, dtype=np.float64))
    factor = np.zeros(product.shape)
    np.divide(num_clips, product, out=factor, where=product > 1e-9)
    return np.sqrt(factor).astype(np.float32)


def _window_scores(rows: Float32) -> Float32:
    """Contrast of all windows, in the order of `_all_windows`: (N, S) → (N, S(S + 1)/2)."""
    num_clips = rows.shape[1]
    sums = _centred_sums(rows)
    factors = _length_factor(np.arange(num_clips + 1), num_clips)
    scores = np.empty((len(rows), num_clips * (num_clips + 1) // 2), dtype=np.float32)
    column = 0
    for length in range(1, num_clips + 1):
        count = num_clips - length + 1
        part = scores[:, column : column + count]
        np.subtract(sums[:, length:], sums[:, :count], out=part)
        part *= factors[length]
        column += count
    return scores


@cache
def _all_windows(num_clips: int) -> NDArray[np.int64]:
    """The clips [start, end) of all windows, short before long: (S(S + 1)/2, 2)."""
    pairs = [
        (start, start + length)
        for length in range(1, num_clips + 1)
        for start in range(num_clips - length + 1)
    ]
    return np.array(pairs, dtype=np.int64)


@cache
def _cuts_a_row(num_rows: int, num_clips: int) -> NDArray[np.bool_]:
    """True where a window takes only a part of the clips that show a row: (windows,)."""
    shown = np.arange(num_clips + 1) * num_rows // num_clips  # the row of each clip, and one past the last
    is_inside = np.zeros(num_clips + 1, dtype=bool)
    is_inside[1:] = shown[1:] == shown[:-1]
    starts, ends = is_inside[_all_windows(num_clips)].T
    cuts: NDArray[np.bool_] = starts | ends
    return cuts


@cache
def _overlap_penalty(num_clips: int, max_iou: float) -> Float32:
    """inf where two windows may not both stay (a window with itself too), else 0: (windows, windows)."""
    windows = _all_windows(num_clips)
    barred = temporal_iou(windows, windows) > max_iou
    np.fill_diagonal(barred, True)
    return np.where(barred, np.float32(np.inf), np.float32(0.0))
