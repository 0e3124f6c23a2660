"""Bootstrap intervals: against a slow loop over the same draws, and their coverage of simple cases."""

import time

import numpy as np
import pytest

from dciml.metrics.intervals import Bootstrap
from dciml.metrics.per_query import PerQuery
from dciml.types import Query


def case(num_videos: int = 7, seed: int = 3) -> tuple[list[Query], PerQuery]:
    rng = np.random.default_rng(seed)
    queries = [
        Query(f"q{video}-{i}", f"v{video:04d}", "s")
        for video in range(num_videos)
        for i in range(int(rng.integers(1, 5)))
    ]
    values = {"R@1": rng.integers(0, 2, len(queries)).astype(float), "mIoU": rng.random(len(queries))}
    return queries, PerQuery(tuple(q.query_id for q in queries), values)


def test_means_equal_a_slow_loop_over_the_same_draws() -> None:
    queries, scores = case()
    intervals = Bootstrap(queries, num_resamples=200, seed=5).means(scores)
    draws = np.random.default_rng(5).integers(7, size=(200, 7))
    for name, values in scores.values.items():
        resampled = []
        for draw in draws:
            picked = [
                value
                for video in draw
                for q, value in zip(queries, values, strict=True)
                if q.video_id == f"v{video:04d}"
            ]
            resampled.append(sum(picked) / len(picked))
        low, high = np.percentile(resampled, [2.5, 97.5])
        assert intervals[name].value == pytest.approx(values.mean())
        assert (intervals[name].low, intervals[name].high) == (pytest.approx(low), pytest.approx(high))


def test_median_equals_a_slow_loop_over_the_same_draws() -> None:
    queries, _ = case()
    ranks = {q.query_id: (i * 7) % 13 + 1 for i, q in enumerate(queries)}
    interval = Bootstrap(queries, num_resamples=150, seed=5).median(ranks)
    medians = []
    for draw in np.random.default_rng(5).integers(7, size=(150, 7)):
        picked = sorted(ranks[q.query_id] for video in draw for q in queries if q.video_id == f"v{video:04d}")
        medians.append(picked[(len(picked) + 1) // 2 - 1])
    low, high = np.percentile(medians, [2.5, 97.5])
    every = sorted(ranks.values())
    assert interval.value == every[(len(every) + 1) // 2 - 1]
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_the_order_of_queries_changes_nothing() -> None:
    queries, scores = case()
    order = np.random.default_rng(0).permutation(len(queries))
    shuffled = PerQuery(
        tuple(scores.query_ids[i] for i in order), {name: v[order] for name, v in scores.values.items()}
    )
    first = Bootstrap(queries).means(scores)
    second = Bootstrap([queries[i] for i in order]).means(shuffled)
    for name, interval in first.items():
        assert (second[name].low, second[name].high) == (
            pytest.approx(interval.low),
            pytest.approx(interval.high),
        )


def test_clusters_widen_the_interval() -> None:
    values = np.repeat(np.arange(40) % 2, 10).astype(float)  # all ten sentences of a video agree
    names = tuple(str(i) for i in range(400))
    clustered = [Query(name, f"v{i // 10}", "s") for i, name in enumerate(names)]
    single = [Query(name, f"v{i}", "s") for i, name in enumerate(names)]
    scores = PerQuery(names, {"R@1": values})
    wide, narrow = Bootstrap(clustered).means(scores)["R@1"], Bootstrap(single).means(scores)["R@1"]
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)
    # A mean of 40 fair coins has a 95 % interval of about ±0.155.
    assert wide.high - wide.low == pytest.approx(0.31, abs=0.04)


def test_other_queries_are_refused() -> None:
    queries, scores = case()
    with pytest.raises(ValueError, match="without a query"):
        Bootstrap(queries[1:]).means(scores)
    with pytest.raises(ValueError, match="no queries"):
        Bootstrap([])


def test_a_full_test_split_takes_less_than_a_few_seconds() -> None:
    queries = [Query(str(i), f"v{i % 4900}", "s") for i in range(17_000)]
    scores = PerQuery(tuple(q.query_id for q in queries), {"R@1": np.ones(17_000)})
    start = time.perf_counter()
    assert Bootstrap(queries).means(scores)["R@1"].low == 1.0
    assert time.perf_counter() - start < 5.0  # well under one on an idle machine
