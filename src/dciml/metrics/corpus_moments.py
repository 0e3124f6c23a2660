"""VCMR: the right video and the right span, out of the whole corpus; the strict and the lenient metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dciml.metrics.grounding import best_overlaps, running_best
from dciml.metrics.per_query import PerQuery, join
from dciml.types import Query, SearchHit

FIRST = (1, 5, 10, 100)
MIN_IOUS = (0.3, 0.5, 0.7)
FIRST_PROPOSALS = (1, 5, 10)
MAX_ANSWERS = 100


def strict(
    queries: Sequence[Query],
    answers: Mapping[str, Sequence[SearchHit]],
    first: Sequence[int] = FIRST,
    min_ious: Sequence[float] = MIN_IOUS,
) -> PerQuery:
    """R@K, IoU=m: one of the first K answers is in the right video and has IoU ≥ m (TVR, JSG, FAWL, ProPy).

    Args:
        answers: at most 100 hits of the whole corpus, best first, keyed by query id; their order counts,
            not their `rank`.
    Raises:
        ValueError: more than 100 answers, ids that do not match, or a query without a true moment.

    >>> query = Query("q", "v", "a dog", ((0.0, 10.0),))
    >>> hits = [SearchHit(1, "w", 0.0, 10.0, 2.0), SearchHit(2, "v", 0.0, 9.0, 1.0)]
    >>> strict([query], {"q": hits}, (1, 5), (0.5,)).means()
    {'R@1, IoU=0.5': 0.0, 'R@5, IoU=0.5': 1.0}
    """
    places = np.full((len(queries), len(min_ious)), np.inf)
    for row, (query, hits) in enumerate(zip(queries, join(queries, answers), strict=True)):
        if len(hits) > MAX_ANSWERS:
            raise ValueError(f"query {query.query_id} has {len(hits)} answers; {MAX_ANSWERS} are allowed")
        own = [(place, hit) for place, hit in enumerate(hits, start=1) if hit.video_id == query.video_id]
        overlaps = best_overlaps(query, [(hit.start_seconds, hit.end_seconds) for _, hit in own])
        for column, min_iou in enumerate(min_ious):
            good = np.flatnonzero(overlaps >= min_iou)
            if len(good):
                places[row, column] = own[good[0]][0]
    values = {
        f"R@{k}, IoU={m}": (places[:, column] <= k).astype(np.float64)
        for k in first
        for column, m in enumerate(min_ious)
    }
    return PerQuery(tuple(query.query_id for query in queries), values)


def lenient(
    queries: Sequence[Query],
    video_ranks: Mapping[str, int],
    proposals: Mapping[str, ArrayLike],
    first: Sequence[int] = FIRST,
    min_ious: Sequence[float] = MIN_IOUS,
    first_proposals: Sequence[int] = FIRST_PROPOSALS,
) -> PerQuery:
    """R@K, IoU=m, N_p=n: the right video is among the first K and one of its first n proposals has IoU ≥ m.

    DCIML's own metric; the published code joined retrieval and grounding by position in two loaders of
    different order, here both are keyed by query id.

    Args:
        video_ranks: rank (from 1) of the true video.
        proposals: proposals in the true video, seconds, (P, 2), best first.

    >>> query = Query("q", "v", "a dog", ((0.0, 10.0),))
    >>> lenient([query], {"q": 3}, {"q": [[20, 30], [0, 9]]}, (10,), (0.5,), (1, 5)).means()
    {'R@10, IoU=0.5, N_p=1': 0.0, 'R@10, IoU=0.5, N_p=5': 1.0}
    """
    ranks = np.array(join(queries, video_ranks), dtype=np.int64)
    best = running_best(queries, proposals, max(first_proposals))
    values = {
        f"R@{k}, IoU={m}, N_p={n}": ((ranks <= k) & (best[:, n - 1] >= m)).astype(np.float64)
        for k in first
        for m in min_ious
        for n in first_proposals
    }
    return PerQuery(tuple(query.query_id for query in queries), values)
