"""SVMR: by hand, against a slow double loop, and its properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.metrics.grounding import best_overlaps, moment_recalls
from dciml.types import Query

span = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(
    lambda ends: (float(min(ends)), float(max(ends)))
)
moment = st.tuples(st.integers(0, 19), st.integers(1, 10)).map(lambda m: (float(m[0]), float(m[0] + m[1])))


def slow_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union > 0 else 0.0


def slow_recall(
    queries: list[Query], candidates: dict[str, list[tuple[float, float]]], n: int, m: float
) -> float:
    hits = 0
    for query in queries:
        found = False
        for candidate in candidates[query.query_id][:n]:
            for moment in query.moments:
                found = found or slow_iou(candidate, moment) >= m
        hits += found
    return hits / len(queries)


def test_moment_recalls_by_hand() -> None:
    queries = [Query("a", "v", "s", ((0.0, 10.0),)), Query("b", "w", "s", ((5.0, 10.0), (20.0, 30.0)))]
    candidates = {"b": [(0.0, 5.0), (20.0, 26.0)], "a": [(0.0, 4.0), (0.0, 8.0)]}
    means = moment_recalls(queries, candidates, (1, 5), (0.3, 0.5, 0.7)).means()
    assert means == {
        "R@1, IoU=0.3": 0.5,
        "R@1, IoU=0.5": 0.0,
        "R@1, IoU=0.7": 0.0,
        "R@5, IoU=0.3": 1.0,
        "R@5, IoU=0.5": 1.0,
        "R@5, IoU=0.7": 0.5,
        "mIoU": pytest.approx(0.2),
    }


def test_best_overlaps_takes_the_best_of_several_moments() -> None:
    query = Query("a", "v", "s", ((0.0, 10.0), (40.0, 50.0)))
    assert best_overlaps(query, [(40.0, 45.0), (0.0, 50.0)]).tolist() == [0.5, 0.2]


def test_best_overlaps_of_no_span_is_empty() -> None:
    assert best_overlaps(Query("a", "v", "s", ((0.0, 1.0),)), []).tolist() == []


def test_a_query_without_a_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="query a has no true moment"):
        moment_recalls([Query("a", "v", "s")], {"a": [(0.0, 1.0)]})


def test_a_query_without_a_proposal_scores_zero() -> None:
    means = moment_recalls([Query("a", "v", "s", ((0.0, 1.0),))], {"a": []}).means()
    assert set(means.values()) == {0.0}


def test_perfect_answers_give_full_marks() -> None:
    queries = [Query(str(i), "v", "s", ((float(i), i + 2.0),)) for i in range(5)]
    means = moment_recalls(queries, {q.query_id: q.moments for q in queries}).means()
    assert set(means.values()) == {1.0}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.lists(moment, min_size=1, max_size=3), st.lists(span, max_size=7)),
        min_size=1,
        max_size=6,
    ),
    st.randoms(),
)
def test_moment_recalls_equals_the_double_loop(
    cases: list[tuple[list[tuple[float, float]], list[tuple[float, float]]]], random: object
) -> None:
    queries = [Query(str(i), "v", "s", tuple(moments)) for i, (moments, _) in enumerate(cases)]
    candidates = {str(i): spans for i, (_, spans) in enumerate(cases)}
    means = moment_recalls(queries, candidates).means()
    for n in (1, 5, 10):
        for m in (0.1, 0.3, 0.5, 0.7):
            assert means[f"R@{n}, IoU={m}"] == pytest.approx(slow_recall(queries, candidates, n, m))
    for m in (0.1, 0.3, 0.5, 0.7):
        assert means[f"R@1, IoU={m}"] <= means[f"R@5, IoU={m}"] <= means[f"R@10, IoU={m}"]
    for n in (1, 5, 10):
        assert means[f"R@{n}, IoU=0.1"] >= means[f"R@{n}, IoU=0.3"] >= means[f"R@{n}, IoU=0.7"]
    shuffled = list(queries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert moment_recalls(shuffled, candidates).means() == pytest.approx(means)
