"""VR: ranks by hand, against a double loop, and in blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.metrics.video_retrieval import recalls, score_blocks, true_ranks
from dciml.types import Query


def slow_rank(scores: list[float], column: int) -> int:
    rank = 1
    for other, score in enumerate(scores):
        if other != column and score >= scores[column]:
            rank += 1
    return rank


def test_true_ranks_by_hand() -> None:
    scores = [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]
    assert true_ranks(scores, [0, 1, 2]).tolist() == [1, 2, 3]


def test_true_ranks_counts_a_tie_against() -> None:
    assert true_ranks(np.zeros((1, 5)), [0]).tolist() == [5]


def test_true_ranks_refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        true_ranks([[np.nan, 1.0]], [0])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=8), st.data())
def test_true_ranks_equals_the_double_loop(rows: list[list[int]], data: st.DataObject) -> None:
    columns = [data.draw(st.integers(0, 5)) for _ in rows]
    expected = [slow_rank([float(x) for x in row], column) for row, column in zip(rows, columns, strict=True)]
    assert true_ranks(np.array(rows, dtype=np.float64), columns).tolist() == expected


@pytest.mark.parametrize("max_products", [1, 7, 40, 10_000])
def test_score_blocks_equals_the_double_loop(max_products: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((9, 5)).astype(np.float32)
    clips = rng.standard_normal((11, 3, 5)).astype(np.float32)
    expected = np.array([[max(float(q @ clip) for clip in video) for video in clips] for q in queries])
    seen = np.full((9, 11), np.nan)
    for chosen, scores in score_blocks(queries, clips, max_products):
        seen[chosen] = scores
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)


def test_recalls_by_hand() -> None:
    queries = [Query(name, "v", "s") for name in "abcd"]
    means = recalls(queries, {"d": 101, "c": 10, "b": 5, "a": 1}).means()
    assert means == {"R@1": 0.25, "R@5": 0.5, "R@10": 0.75, "R@100": 0.75, "SumR": 2.25}


def test_recalls_refuses_rank_zero() -> None:
    with pytest.raises(ValueError, match="from 1"):
        recalls([Query("a", "v", "s")], {"a": 0})


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.randoms())
def test_recalls_rise_with_k_and_ignore_the_order(ranks: list[int], random: object) -> None:
    queries = [Query(str(i), "v", "s") for i in range(len(ranks))]
    keyed = {str(i): rank for i, rank in enumerate(ranks)}
    means = recalls(queries, keyed).means()
    assert means["R@1"] <= means["R@5"] <= means["R@10"] <= means["R@100"]
    shuffled = list(queries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert recalls(shuffled, keyed).means() == pytest.approx(means)
