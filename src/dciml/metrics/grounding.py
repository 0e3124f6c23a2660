"""SVMR: the video is given; do the first spans meet a true moment (of several, the best counts)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dciml.metrics.per_query import FloatArray, PerQuery, join
from dciml.spans import temporal_iou
from dciml.types import Query

FIRST = (1, 5, 10)
MIN_IOUS = (0.1, 0.3, 0.5, 0.7)


def best_overlaps(query: Query, spans_seconds: ArrayLike) -> FloatArray:
    """IoU of each span (P, 2) with the true moment that it overlaps most: (P,).

    Raises:
        ValueError: the query has no true moment, or a span ends before it starts.

    >>> best_overlaps(Query("q", "v", "s", ((0.0, 4.0), (8.0, 10.0))), [[8.0, 10.0], [0.0, 8.0]]).tolist()
    [1.0, 0.5]
    """
    if not query.moments:
        raise ValueError(f"query {query.query_id} has no true moment")
    return np.asarray(temporal_iou(spans_seconds, query.moments).max(axis=1), dtype=np.float64)


def running_best(queries: Sequence[Query], candidates: Mapping[str, ArrayLike], num: int) -> FloatArray:
    """(Q, num): the best IoU among the first n spans of each query, for n = 1 … `num`.

    Args:
        candidates: spans in seconds, (P, 2), best first, keyed by query id; P may differ and may be 0.
    """
    table = np.zeros((len(queries), num))
    for row, (query, spans) in enumerate(zip(queries, join(queries, candidates), strict=True)):
        overlaps = best_overlaps(query, spans)[:num]
        table[row, : len(overlaps)] = overlaps
    return np.maximum.accumulate(table, axis=1)


def moment_recalls(
    queries: Sequence[Query],
    candidates: Mapping[str, ArrayLike],
    first: Sequence[int] = FIRST,
    min_ious: Sequence[float] = MIN_IOUS,
) -> PerQuery:
    """R@n, IoU=m (one of the first n spans has IoU ≥ m with a true moment) and mIoU (IoU of the first span).

    Args:
        candidates: spans in seconds, (P, 2), best first, keyed by query id.

    >>> moments = ((0.0, 10.0),)
    >>> scores = moment_recalls([Query("q", "v", "s", moments)], {"q": [[0, 20], [0, 9]]}, (1, 5), (0.7,))
    >>> scores.means()
    {'R@1, IoU=0.7': 0.0, 'R@5, IoU=0.7': 1.0, 'mIoU': 0.5}
    """
    best = running_best(queries, candidates, max(first))
    values = {f"R@{n}, IoU={m}": (best[:, n - 1] >= m).astype(np.float64) for n in first for m in min_ious}
    return PerQuery(tuple(query.query_id for query in queries), values | {"mIoU": best[:, 0].copy()})
