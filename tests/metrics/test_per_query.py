"""The join by query id and the table of per-query values."""

import numpy as np
import pytest

from dciml.metrics.per_query import PerQuery, concatenate, join
from dciml.types import Query


def queries(*names: str) -> list[Query]:
    return [Query(name, "v", "a sentence") for name in names]


def test_join_follows_the_ids_not_the_order() -> None:
    assert join(queries("a", "b", "c"), {"c": 3, "a": 1, "b": 2}) == [1, 2, 3]


def test_join_refuses_a_missing_an_extra_and_a_double_id() -> None:
    with pytest.raises(ValueError, match="queries without a value: b; values without a query: none"):
        join(queries("a", "b"), {"a": 1})
    with pytest.raises(ValueError, match="values without a query: c"):
        join(queries("a"), {"a": 1, "c": 1})
    with pytest.raises(ValueError, match="twice"):
        join(queries("a", "a"), {"a": 1})


def test_join_names_three_ids_and_counts_the_rest() -> None:
    with pytest.raises(ValueError, match="a, b, c and 2 more"):
        join(queries("a", "b", "c", "d", "e"), {})


def test_concatenate_keeps_queries_and_values_together() -> None:
    parts = [PerQuery(("a",), {"R@1": np.array([1.0])}), PerQuery(("b", "c"), {"R@1": np.array([0.0, 1.0])})]
    joined = concatenate(parts)
    assert joined.query_ids == ("a", "b", "c")
    assert joined.values["R@1"].tolist() == [1.0, 0.0, 1.0]
    assert joined.means()["R@1"] == pytest.approx(2 / 3)


def test_concatenate_refuses_doubles_and_unlike_parts() -> None:
    one = PerQuery(("a",), {"R@1": np.array([1.0])})
    with pytest.raises(ValueError, match="two parts"):
        concatenate([one, one])
    with pytest.raises(ValueError, match="different metrics"):
        concatenate([one, PerQuery(("b",), {"R@5": np.array([1.0])})])
    with pytest.raises(ValueError, match="nothing"):
        concatenate([])


def test_per_query_refuses_values_of_another_length() -> None:
    with pytest.raises(ValueError, match="R@1"):
        PerQuery(("a", "b"), {"R@1": np.array([1.0])})
