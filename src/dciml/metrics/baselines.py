"""Rows that know nothing of the query: chance, and the same ten blind spans for every query.

A number at or below the blind row says nothing of grounding, however high it looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dciml.metrics import corpus_moments, grounding, video_retrieval
from dciml.metrics.per_query import FloatArray, PerQuery, join
from dciml.spans import temporal_iou, to_seconds
from dciml.types import Query

# The whole video, its halves, thirds and quarters, in this order.
BLIND_SPANS_UNIT: tuple[tuple[float, float], ...] = tuple(
    (part / parts, (part + 1) / parts) for parts in (1, 2, 3, 4) for part in range(parts)
)
GRID = 64


def blind_spans(duration_seconds: float) -> FloatArray:
    """The ten blind spans in seconds, (10, 2).

    >>> blind_spans(12.0)[:4].tolist()
    [[0.0, 12.0], [0.0, 6.0], [6.0, 12.0], [0.0, 4.0]]
    """
    return to_seconds(np.array(BLIND_SPANS_UNIT), np.full(len(BLIND_SPANS_UNIT), duration_seconds))


class Chance:
    """Expected figures of answers drawn at random: a video, uniformly; a span with uniform end points.

    The probability that a random span reaches an IoU is integrated over a fixed grid of spans, so that
    several true moments need no special case and no seed is involved; the rest is closed form.

    Args:
        queries: queries with true moments.
        durations_seconds: duration of each query's video, keyed by query id.
    """

    def __init__(self, queries: Sequence[Query], durations_seconds: Mapping[str, float]) -> None:
        self._queries = list(queries)
        self._query_ids = tuple(query.query_id for query in queries)
        grid, self._weights = _uniform_spans()
        min_ious = sorted({*grounding.MIN_IOUS, *corpus_moments.MIN_IOUS})
        self._reach = {m: np.zeros(len(queries)) for m in min_ious}
        self._mean_iou = np.zeros(len(queries))
        for row, (query, seconds) in enumerate(zip(queries, join(queries, durations_seconds), strict=True)):
            best = temporal_iou(grid, np.array(query.moments) / seconds).max(axis=1)
            self._mean_iou[row] = best @ self._weights
            for m, reach in self._reach.items():
                reach[row] = self._weights[best >= m].sum()

    def moment_recalls(self) -> PerQuery:
        """SVMR of spans drawn independently."""
        values = {
            f"R@{n}, IoU={m}": 1 - (1 - self._reach[m]) ** n
            for n in grounding.FIRST
            for m in grounding.MIN_IOUS
        }
        return PerQuery(self._query_ids, values | {"mIoU": self._mean_iou})

    def strict(self, num_videos: int) -> PerQuery:
        """Strict VCMR of (video, span) pairs drawn independently."""
        values = {
            f"R@{k}, IoU={m}": 1 - (1 - self._reach[m] / num_videos) ** k
            for k in corpus_moments.FIRST
            for m in corpus_moments.MIN_IOUS
        }
        return PerQuery(self._query_ids, values)

    def lenient(self, num_videos: int) -> PerQuery:
        """Lenient VCMR of a random order of the videos and spans drawn independently."""
        values = {
            f"R@{k}, IoU={m}, N_p={n}": min(k / num_videos, 1.0) * (1 - (1 - self._reach[m]) ** n)
            for k in corpus_moments.FIRST
            for m in corpus_moments.MIN_IOUS
            for n in corpus_moments.FIRST_PROPOSALS
        }
        return PerQuery(self._query_ids, values)


def chance_recalls(queries: Sequence[Query], num_videos: int) -> PerQuery:
    """VR of a random order of `num_videos` videos: R@K = K/V.

    >>> chance_recalls([Query("q", "v", "s")], 20).means()["R@5"]
    0.25
    """
    values = {f"R@{k}": np.full(len(queries), min(k / num_videos, 1.0)) for k in video_retrieval.FIRST}
    values["SumR"] = np.sum(list(values.values()), axis=0)
    return PerQuery(tuple(query.query_id for query in queries), values)


def _uniform_spans() -> tuple[FloatArray, FloatArray]:
    """Spans (n, 2) whose end points cover start ≤ end evenly, and their weights (n,), which sum to 1.

    One span stands for each cell of a grid; a cell on the diagonal is half a cell, at its centre of gravity.
    """
    start, end = np.triu_indices(GRID)
    diagonal = start == end
    offset = np.where(diagonal, 1 / 3, 1 / 2)
    spans = np.stack([(start + offset) / GRID, (end + 1 - offset) / GRID], axis=1)
    weights = np.where(diagonal, 0.5, 1.0)
    return spans, weights / weights.sum()
