"""How videos and candidate spans become a ranked answer. Pure functions of arrays, one batch of queries at a time.

The span score orders the spans of one video (`rank_spans`, all that is needed when the video is given):

    contrast_weight · contrast + reconstruction_weight · (reconstruction − best reconstruction of the video)

A window has no reconstruction of its own; it counts as an average proposal of its video. The order over videos
(`rank_moments`) is by `video_weight · video score + span term`, see `AnswerConfig.span_reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dciml.config import AnswerConfig
from dciml.features import whole_rows
from dciml.search.contrast import contrast_windows, similarity_spread, span_contrast, with_floor
from dciml.search.engines import Grounding

FloatArray = NDArray[np.float64]
ROUNDING = 1e-6
"""What is half of a span but for rounding is half of it."""
Whole = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""What a share is of, from the lengths of two spans and of what they share."""


@dataclass(frozen=True)
class ScoredSpans:
    """Spans of N (query, video) pairs, best first: `spans_unit` (N, P, 2) and `scores` (N, P), −inf where none is."""

    spans_unit: FloatArray
    scores: FloatArray


@dataclass(frozen=True)
class Evidence:
    """What search knows on the K best videos of Q queries before it decides; the same for all answer settings.

    `video_scores` is (Q, K), best first; `clip_scores` (Q, K, S). `grounding` has Q · G rows, the first G videos of
    query 0, then those of query 1, and so on; None when no video was grounded. `num_rows` (Q, K) are the feature rows
    of the videos; None: as many as clips.
    """

    video_scores: NDArray[np.float32]
    clip_scores: NDArray[np.float32]
    grounding: Grounding | None
    num_rows: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class RankedMoments:
    """The answer to Q queries, H moments each, best first.

    `video_places` (Q, H) count into the K videos; `spans_unit` is (Q, H, 2); `scores` (Q, H), −inf where a query
    has fewer moments.
    """

    video_places: NDArray[np.int64]
    spans_unit: FloatArray
    scores: FloatArray


def rank_spans(
    clip_scores: NDArray[np.float32],
    grounding: Grounding | None,
    config: AnswerConfig,
    num_rows: NDArray[np.int64] | None = None,
) -> ScoredSpans:
    """Score and order the candidate spans of each (query, video) pair; in a video of few rows, spans of whole rows.

    Args:
        clip_scores: (N, S), similarity of the query to each clip.
        grounding: the model's proposals for the N pairs; None: windows are the only candidates.
        num_rows: (N,), feature rows of the videos; None: S.
    """
    counts = np.full(len(clip_scores), clip_scores.shape[1]) if num_rows is None else num_rows
    clip_scores = with_floor(clip_scores, config.contrast_floor)
    candidates = []
    typical = np.zeros(len(clip_scores))  # what a window lacks: a reconstruction score
    if grounding is not None and config.candidates != "windows":
        below = grounding.scores - grounding.scores.max(axis=1, keepdims=True)
        typical = below.mean(axis=1)
        proposed = whole_rows(grounding.spans_unit, counts[:, None], clip_scores.shape[1])
        contrast = _scaled(span_contrast(clip_scores, proposed, counts), clip_scores, config)
        score = config.contrast_weight * contrast + config.reconstruction_weight * below
        candidates.append((proposed, score))
    if grounding is None or config.candidates != "proposals":
        windows, raw = contrast_windows(clip_scores, config.num_windows, config.window_max_iou, counts)
        contrast = _scaled(raw, clip_scores, config)
        score = config.contrast_weight * contrast + config.reconstruction_weight * typical[:, None]
        candidates.append((windows, np.where(np.isneginf(raw), -np.inf, score)))
    spans = np.concatenate([spans for spans, _ in candidates], axis=1)
    scores = np.concatenate([score for _, score in candidates], axis=1)
    ranked = _best_first(spans, scores)
    if config.nms_iou is not None:
        kept_scores = _suppressed(ranked.spans_unit, ranked.scores, config.nms_iou, _of_union)
        ranked = _best_first(ranked.spans_unit, kept_scores)
    kept = slice(None, config.max_spans)
    return ScoredSpans(ranked.spans_unit[:, kept], ranked.scores[:, kept])


def rank_moments(
    evidence: Evidence, config: AnswerConfig, num_moments: int, max_inside: float | None = None
) -> RankedMoments:
    """The best moments of each query over all its videos; ties in the order of the videos, then of their spans.

    Args:
        max_inside: as `total_scores` takes it.
    """
    return moments_of(
        evidence.video_scores, *spans_of_videos(evidence, config), config, num_moments, max_inside
    )


def moments_of(
    video_scores: NDArray[np.float32],
    spans: FloatArray,
    scores: FloatArray,
    config: AnswerConfig,
    num_moments: int,
    max_inside: float | None = None,
) -> RankedMoments:
    """The best moments of each query.

    Args:
        video_scores: (Q, K). spans, scores: as `spans_of_videos` gives them.
        max_inside: as `total_scores` takes it.
    """
    total, num_spans = total_scores(video_scores, spans, scores, config, max_inside), scores.shape[2]
    flat = total.reshape(len(total), -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :num_moments]
    chosen = np.take_along_axis(spans.reshape(len(total), -1, 2), order[..., None], axis=1)
    return RankedMoments(order // num_spans, chosen, np.take_along_axis(flat, order, axis=1))


def total_scores(
    video_scores: NDArray[np.float32],
    spans: FloatArray,
    scores: FloatArray,
    config: AnswerConfig,
    max_inside: float | None = None,
) -> FloatArray:
    """What moments are ranked by, from the scores of videos (Q, K) and of their spans, best first: (Q, K, P).

    Args:
        max_inside: moments that share more than this part of the shorter of the two with a better one of their video
            get −inf, for answers that are shown; None: none do.
    """
    total: FloatArray = config.video_weight * video_scores[..., None] + _span_term(scores, config)
    if max_inside is None:
        return total
    num_spans = scores.shape[-1]
    flat = total.reshape(-1, num_spans)
    kept = _suppressed(spans.reshape(-1, num_spans, 2), flat, max_inside, _of_shorter)
    return kept.reshape(total.shape)


def spans_of_videos(evidence: Evidence, config: AnswerConfig) -> tuple[FloatArray, FloatArray]:
    """The spans of each video and their scores, best first: (Q, K, P, 2) and (Q, K, P), −inf where none is."""
    num_queries, num_videos, num_clips = evidence.clip_scores.shape
    grounding = evidence.grounding
    num_grounded = 0 if grounding is None else len(grounding.scores) // max(1, num_queries)
    parts = []
    for columns, proposals in ((slice(0, num_grounded), grounding), (slice(num_grounded, None), None)):
        clip_scores = evidence.clip_scores[:, columns]
        counts = None if evidence.num_rows is None else evidence.num_rows[:, columns].reshape(-1)
        if clip_scores.shape[1]:
            ranked = rank_spans(clip_scores.reshape(-1, num_clips), proposals, config, counts)
            parts.append((clip_scores.shape[1], ranked))
    width = max((ranked.scores.shape[1] for _, ranked in parts), default=1)
    spans = np.zeros((num_queries, num_videos, width, 2))
    scores = np.full((num_queries, num_videos, width), -np.inf)
    start = 0
    for count, ranked in parts:
        num_spans = ranked.scores.shape[1]
        place = (slice(None), slice(start, start + count), slice(0, num_spans))
        spans[place] = ranked.spans_unit.reshape(num_queries, count, num_spans, 2)
        scores[place] = ranked.scores.reshape(num_queries, count, num_spans)
        start += count
    return spans, scores


def _span_term(scores: FloatArray, config: AnswerConfig) -> FloatArray:
    """What spans add to the score of their video: (…, P), best first → (…, P). A video has at least one span."""
    if config.span_reference == "absolute":
        return scores
    below = scores - scores[..., :1]
    if config.span_reference == "softmax":
        below = below - np.log(np.exp(below).sum(axis=-1, keepdims=True))
    return below


def _scaled(
    contrast: NDArray[np.float32], clip_scores: NDArray[np.float32], config: AnswerConfig
) -> FloatArray:
    wide = contrast.astype(np.float64)
    if config.contrast_scale == "similarity":
        return wide
    spread = similarity_spread(clip_scores).astype(np.float64)[:, None]
    # Alike clips have no spread but rounding: their contrast says nothing.
    return np.divide(wide, spread, out=np.zeros_like(wide), where=spread > 1e-6)


def _best_first(spans: FloatArray, scores: FloatArray) -> ScoredSpans:
    order = np.argsort(-scores, axis=1, kind="stable")
    return ScoredSpans(
        np.take_along_axis(spans, order[..., None], axis=1), np.take_along_axis(scores, order, axis=1)
    )


def _suppressed(spans: FloatArray, ranked: FloatArray, most: float, whole_of: Whole) -> FloatArray:
    """Scores (N, P), best first, with −inf for each span that shares with a kept, better one of its row more than
    `most` of a whole."""
    scores, (start, end) = ranked.copy(), np.moveaxis(spans, -1, 0)
    length = end - start
    for place in range(scores.shape[1] - 1):
        later, better = slice(place + 1, None), slice(place, place + 1)
        inside = np.minimum(end[:, later], end[:, better]) - np.maximum(start[:, later], start[:, better])
        inside = np.clip(inside, 0.0, None)
        whole = whole_of(length[:, later], length[:, better], inside)
        kept = ~np.isneginf(scores[:, better])
        scores[:, later] = np.where(kept & (inside > most * whole), -np.inf, scores[:, later])
    return scores


def _of_union(length: FloatArray, other: FloatArray, inside: FloatArray) -> FloatArray:
    return length + other - inside


def _of_shorter(length: FloatArray, other: FloatArray, inside: FloatArray) -> FloatArray:
    return np.minimum(length, other) * (1 + ROUNDING)
