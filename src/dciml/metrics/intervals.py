"""Percentile bootstrap intervals over queries, clustered by video.

The sentences of one video are not independent of each other: they share its features, its rank and often its
moments. So whole videos are drawn with replacement, each with all its queries; drawing single queries would
give intervals that are too narrow. All metrics of one bootstrap use the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.metrics.per_query import FloatArray, PerQuery, join
from dciml.types import Query

CONFIDENCE = 0.95
BLOCK = 100


@dataclass(frozen=True)
class Interval:
    """A value and the bounds of its 95 % interval, in the same unit."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Fixed draws of videos, to be used for every metric of the same queries.

    Args:
        queries: the queries that are measured; their videos are the clusters.
        num_resamples: draws; 1000 settle a 95 % interval to about a tenth of its width.
        seed: the same seed gives the same draws.
    """

    def __init__(self, queries: Sequence[Query], num_resamples: int = 1000, seed: int = 9527) -> None:
        if not queries:
            raise ValueError("there are no queries to draw from")
        # Sorted, so that the order in which queries arrive changes nothing.
        self._queries = sorted(queries, key=lambda query: query.query_id)
        names = sorted({query.video_id for query in queries})
        number = {name: index for index, name in enumerate(names)}
        self._cluster = np.array([number[query.video_id] for query in self._queries], dtype=np.int64)
        self._draws = _draw_counts(len(names), num_resamples, seed)
        self._sizes = self._draws @ np.bincount(self._cluster, minlength=len(names)).astype(np.float64)

    def means(self, scores: PerQuery) -> dict[str, Interval]:
        """The mean of each metric with its interval.

        Raises:
            ValueError: the metrics are of other queries than the bootstrap's.
        """
        order = self._order(scores.query_ids)
        names = list(scores.values)
        table = np.stack([scores.values[name][order] for name in names], axis=1)  # (Q, metrics)
        sums = np.zeros((self._draws.shape[1], len(names)))
        np.add.at(sums, self._cluster, table)
        resampled = (self._draws @ sums) / self._sizes[:, None]  # (resamples, metrics)
        low, high = _percentiles(resampled)
        return {
            name: Interval(float(table[:, column].mean()), float(low[column]), float(high[column]))
            for column, name in enumerate(names)
        }

    def ratio(self, above: Mapping[str, float], below: Mapping[str, float]) -> Interval | None:
        """The sum of one value over the sum of another, both keyed by query id, with its interval.

        Returns: None where the values below add up to 0. A draw in which they do is left out.
        """
        sums = np.zeros((2, self._draws.shape[1]))
        for row, values in zip(sums, (above, below), strict=True):
            np.add.at(row, self._cluster, np.array(join(self._queries, values), dtype=np.float64))
        total_above, total_below = sums.sum(axis=1).tolist()
        if total_below == 0:
            return None
        drawn_above, drawn_below = self._draws @ sums[0], self._draws @ sums[1]
        low, high = _percentiles((drawn_above[drawn_below > 0] / drawn_below[drawn_below > 0])[:, None])
        return Interval(total_above / total_below, float(low[0]), float(high[0]))

    def median(self, values: Mapping[str, float]) -> Interval:
        """The (lower) median of a value keyed by query id, such as a rank, with its interval."""
        array = np.array(join(self._queries, values), dtype=np.float64)
        order = np.argsort(array, kind="stable")
        array, cluster = array[order], self._cluster[order]
        medians = []
        for start in range(0, len(self._draws), BLOCK):
            reached = np.cumsum(self._draws[start : start + BLOCK][:, cluster], axis=1)
            half = (reached[:, -1:] + 1) // 2
            medians.append(array[np.argmax(reached >= half, axis=1)])
        low, high = _percentiles(np.concatenate(medians)[:, None])
        return Interval(float(array[(len(array) + 1) // 2 - 1]), float(low[0]), float(high[0]))

    def _order(self, query_ids: Sequence[str]) -> NDArray[np.int64]:
        positions = {query_id: index for index, query_id in enumerate(query_ids)}
        return np.array(join(self._queries, positions), dtype=np.int64)


def _draw_counts(num_videos: int, num_resamples: int, seed: int) -> FloatArray:
    """(resamples, videos): how often each video occurs in each draw of `num_videos` videos."""
    drawn = np.random.default_rng(seed).integers(num_videos, size=(num_resamples, num_videos))
    drawn += np.arange(num_resamples)[:, None] * num_videos
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_videos)
    return counts.reshape(num_resamples, num_videos).astype(np.float64)


def _percentiles(resampled: ArrayLike) -> tuple[FloatArray, FloatArray]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.asarray(resampled), [tail, 100 - tail], axis=0)
    return low, high
