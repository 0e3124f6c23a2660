"""VCMR, strict and lenient: by hand, against slow loops, and their properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.metrics.corpus_moments import lenient, strict
from dciml.types import Query, SearchHit

Answer = tuple[str, float, float]
Span = tuple[float, float]
MOMENT = (0.0, 10.0)
span = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(
    lambda ends: (float(min(ends)), float(max(ends)))
)
answers = st.lists(st.tuples(st.sampled_from("vwx"), span).map(lambda a: (a[0], *a[1])), max_size=12)


def as_hits(found: list[Answer]) -> list[SearchHit]:
    return [SearchHit(i + 1, video, start, end, -float(i)) for i, (video, start, end) in enumerate(found)]


def slow_iou(a: Span, b: Span) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union > 0 else 0.0


def slow_strict(queries: list[Query], found: dict[str, list[Answer]], k: int, m: float) -> float:
    hits = 0
    for query in queries:
        good = False
        for video, start, end in found[query.query_id][:k]:
            for moment in query.moments:
                good = good or (video == query.video_id and slow_iou((start, end), moment) >= m)
        hits += good
    return hits / len(queries)


def test_strict_by_hand() -> None:
    queries = [Query("a", "v", "s", (MOMENT,)), Query("b", "w", "s", (MOMENT, (20.0, 30.0)))]
    found = {
        "b": as_hits([("w", 20.0, 26.0), ("v", 0.0, 10.0), ("w", 20.0, 29.0)]),
        "a": as_hits([("w", 0.0, 10.0), ("v", 0.0, 4.0)]),
    }
    means = strict(queries, found, (1, 5), (0.3, 0.5, 0.7)).means()
    assert means == {
        "R@1, IoU=0.3": 0.5,
        "R@1, IoU=0.5": 0.5,
        "R@1, IoU=0.7": 0.0,
        "R@5, IoU=0.3": 1.0,
        "R@5, IoU=0.5": 0.5,
        "R@5, IoU=0.7": 0.5,
    }


def test_strict_refuses_more_than_a_hundred_answers() -> None:
    with pytest.raises(ValueError, match="101 answers"):
        strict([Query("a", "v", "s", (MOMENT,))], {"a": as_hits([("v", 0.0, 1.0)] * 101)})


def test_strict_refuses_answers_to_another_query() -> None:
    with pytest.raises(ValueError, match="without a query: b"):
        strict([Query("a", "v", "s", (MOMENT,))], {"a": [], "b": []})


def test_perfect_answers_give_full_marks() -> None:
    queries = [Query(str(i), f"v{i}", "s", ((float(i), i + 3.0),)) for i in range(4)]
    found = {q.query_id: as_hits([(q.video_id, *q.moments[0])]) for q in queries}
    assert set(strict(queries, found).means().values()) == {1.0}
    ranks = {q.query_id: 1 for q in queries}
    spans = {q.query_id: q.moments for q in queries}
    assert set(lenient(queries, ranks, spans).means().values()) == {1.0}


@settings(deadline=None, max_examples=50)
@given(st.lists(answers, min_size=1, max_size=5), st.randoms())
def test_strict_equals_the_double_loop(found: list[list[Answer]], random: object) -> None:
    queries = [Query(str(i), "v", "s", (MOMENT, (2.0, 4.0))) for i in range(len(found))]
    hits = {str(i): as_hits(row) for i, row in enumerate(found)}
    means = strict(queries, hits).means()
    plain = {str(i): row for i, row in enumerate(found)}
    for k in (1, 5, 10, 100):
        for m in (0.3, 0.5, 0.7):
            assert means[f"R@{k}, IoU={m}"] == pytest.approx(slow_strict(queries, plain, k, m))
    for m in (0.3, 0.5, 0.7):
        assert means[f"R@1, IoU={m}"] <= means[f"R@5, IoU={m}"] <= means[f"R@100, IoU={m}"]
    for k in (1, 5, 10, 100):
        assert means[f"R@{k}, IoU=0.3"] >= means[f"R@{k}, IoU=0.5"] >= means[f"R@{k}, IoU=0.7"]
    shuffled = list(queries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert strict(shuffled, hits).means() == pytest.approx(means)


def test_lenient_by_hand() -> None:
    queries = [Query("a", "v", "s", (MOMENT,)), Query("b", "w", "s", (MOMENT,))]
    spans = {"b": [(20.0, 30.0), (0.0, 9.0)], "a": [(0.0, 6.0), (20.0, 30.0)]}
    means = lenient(queries, {"a": 2, "b": 7}, spans, (1, 5, 10), (0.5, 0.7), (1, 5)).means()
    assert {name for name, value in means.items() if value == 0.0} == {
        *(f"R@1, IoU={m}, N_p={n}" for m in (0.5, 0.7) for n in (1, 5)),
        *(f"R@{k}, IoU=0.7, N_p=1" for k in (5, 10)),
        "R@5, IoU=0.7, N_p=5",
    }
    assert means["R@5, IoU=0.5, N_p=1"] == means["R@5, IoU=0.5, N_p=5"] == 0.5
    assert means["R@10, IoU=0.5, N_p=1"] == means["R@10, IoU=0.7, N_p=5"] == 0.5
    assert means["R@10, IoU=0.5, N_p=5"] == 1.0


def test_lenient_joins_by_id_not_by_position() -> None:
    queries = [Query("a", "v", "s", (MOMENT,)), Query("b", "w", "s", (MOMENT,))]
    ranks, spans = {"a": 1, "b": 50}, {"a": [MOMENT], "b": [(90.0, 99.0)]}
    assert lenient(queries, ranks, spans).means()["R@1, IoU=0.7, N_p=1"] == 0.5
    swapped = dict(reversed(spans.items()))
    assert lenient(queries, ranks, swapped).means() == lenient(queries, ranks, spans).means()
    with pytest.raises(ValueError, match="without a value: b"):
        lenient(queries, {"a": 1}, spans)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 120), st.lists(span, min_size=1, max_size=10)), min_size=1, max_size=6)
)
def test_lenient_equals_the_double_loop_and_bounds_strict(cases: list[tuple[int, list[Span]]]) -> None:
    queries = [Query(str(i), "v", "s", (MOMENT, (2.0, 4.0))) for i in range(len(cases))]
    ranks = {str(i): rank for i, (rank, _) in enumerate(cases)}
    spans = {str(i): found for i, (_, found) in enumerate(cases)}
    means = lenient(queries, ranks, spans).means()
    for k in (1, 5, 10, 100):
        for m in (0.3, 0.5, 0.7):
            by_size = []
            for n in (1, 5, 10):
                count = 0
                for rank, found in cases:
                    good = [max(slow_iou(s, t) for t in queries[0].moments) >= m for s in found[:n]]
                    count += rank <= k and any(good)
                by_size.append(count / len(cases))
                assert means[f"R@{k}, IoU={m}, N_p={n}"] == pytest.approx(by_size[-1])
            assert by_size == sorted(by_size)
    # Video after video, each with its proposals in the same order: a strict hit is then a lenient one.
    listed = {
        name: as_hits(([("other", 0.0, 1.0)] * (ranks[name] - 1) + [("v", *s) for s in found])[:100])
        for name, found in spans.items()
    }
    strict_means = strict(queries, listed).means()
    for name, value in strict_means.items():
        assert value <= means[f"{name}, N_p=10"]
