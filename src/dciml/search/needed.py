"""Only for speed: the first moments of an answer, with no more videos grounded than can have one of them.

Where the best span of every video adds nothing to the score of its video (`span_reference: best`), a video's moments
are known to lie at or below `video_weight · video score`, and one of them to lie just there, before it is grounded.
So of N moments none lies in a video after the first N; and a video whose score lies below N moments that are known has
none either. `rank_moments` over everything grounded gives the same moments, and is what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dciml.config import AnswerConfig
from dciml.search.answer import (
    Evidence,
    RankedMoments,
    moments_of,
    rank_moments,
    rank_spans,
    spans_of_videos,
    total_scores,
)
from dciml.search.engines import Grounding

FloatArray = NDArray[np.float64]
Places = NDArray[np.int64]
Ground = Callable[[Places, Places], Grounding]
"""Grounds N pairs: places of queries (N,) and places among their K videos (N,) → proposals of each."""


def first_moments(
    evidence: Evidence,
    config: AnswerConfig,
    num_moments: int,
    num_grounded: int,
    ground: Ground,
    max_inside: float | None = None,
) -> RankedMoments:
    """The best moments of each query, as `rank_moments` has them when the first `num_grounded` videos are grounded.

    Args:
        evidence: of videos none of which is grounded.
        num_grounded: how many videos of a query, the best first, would be grounded.
        ground: is called at most twice, with different pairs.
        max_inside: as `rank_moments` takes it.
    """
    if config.span_reference != "best":
        most = min(num_grounded, evidence.video_scores.shape[1])
        return rank_moments(_all_grounded(evidence, most, ground), config, num_moments, max_inside)
    evidence = _of_first_videos(evidence, num_looked(config, num_moments))
    most = min(num_grounded, evidence.video_scores.shape[1])
    spans, scores = spans_of_videos(evidence, config)
    found = moments_of(evidence.video_scores, spans, scores, config, num_moments, max_inside)
    if not most:
        return found
    done = np.zeros(len(scores), dtype=np.int64)
    # Most videos that have a moment by their windows alone have one when grounded: a guess that saves a second call.
    wanted = np.minimum(np.where(np.isfinite(found.scores), found.video_places, 0).max(axis=1) + 1, most)
    while (done < wanted).any():
        pairs = _pairs(done, wanted)
        spans, scores = _with_grounded(evidence, config, (spans, scores), pairs, ground(*pairs))
        known = total_scores(evidence.video_scores, spans, scores, config, max_inside)
        done, wanted = wanted, _num_needed(known, wanted, num_moments, most)
        found = moments_of(evidence.video_scores, spans, scores, config, num_moments, max_inside)
    return found


def num_looked(config: AnswerConfig, num_moments: int) -> int | None:
    """In how many videos, the best first, so many moments can lie; None: in any."""
    return num_moments if config.span_reference == "best" else None


def _all_grounded(evidence: Evidence, most: int, ground: Ground) -> Evidence:
    num_queries = len(evidence.video_scores)
    queries, places = _pairs(np.zeros(num_queries, dtype=np.int64), np.full(num_queries, most))
    grounding = ground(queries, places) if len(queries) else None
    return replace(evidence, grounding=grounding)


def _of_first_videos(evidence: Evidence, count: int | None) -> Evidence:
    rows = evidence.num_rows
    return replace(
        evidence,
        video_scores=evidence.video_scores[:, :count],
        clip_scores=evidence.clip_scores[:, :count],
        num_rows=None if rows is None else rows[:, :count],
    )


def _pairs(first: Places, end: Places) -> tuple[Places, Places]:
    """All (query, place of a video) with first ≤ place < end of the query, in order."""
    queries = np.repeat(np.arange(len(first)), end - first)
    places = [np.arange(own, own_end) for own, own_end in zip(first.tolist(), end.tolist(), strict=True)]
    return queries, np.concatenate(places) if places else queries


def _with_grounded(
    evidence: Evidence,
    config: AnswerConfig,
    before: tuple[FloatArray, FloatArray],
    pairs: tuple[Places, Places],
    grounding: Grounding,
) -> tuple[FloatArray, FloatArray]:
    """The spans (Q, K, P, 2) and scores (Q, K, P) of all videos, those of some pairs by their grounding."""
    counts = None if evidence.num_rows is None else evidence.num_rows[pairs]
    ranked = rank_spans(evidence.clip_scores[pairs], grounding, config, counts)
    num_spans, (num_queries, num_videos, num_before) = ranked.scores.shape[1], before[1].shape
    spans = np.zeros((num_queries, num_videos, max(num_spans, num_before), 2))
    scores = np.full(spans.shape[:3], -np.inf)
    spans[:, :, :num_before], scores[:, :, :num_before] = before
    scores[pairs] = -np.inf
    spans[(*pairs, slice(num_spans))] = ranked.spans_unit
    scores[(*pairs, slice(num_spans))] = ranked.scores
    return spans, scores


def _num_needed(known: FloatArray, done: Places, num_moments: int, most: int) -> Places:
    """How many videos of each query must be grounded: those that are, and those that may have one of its moments.

    Args:
        known: (Q, K, P), see `total_scores`; is written to.
    """
    place = np.arange(known.shape[1])
    pending = (place >= done[:, None]) & (place < most)
    known[..., 1:][pending] = -np.inf  # of a pending video only its best score is known
    flat = known.reshape(len(known), -1)
    if flat.shape[1] <= num_moments:
        return np.full_like(done, most)
    least = -np.partition(-flat, num_moments - 1, axis=1)[:, num_moments - 1 : num_moments]
    may_have = pending & (known[..., 0] >= least)
    needed: Places = done + may_have.sum(axis=1)
    return needed
