"""One value per query first, a mean second: what every metric returns; and the join by query id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dciml.types import Query

FloatArray = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class PerQuery:
    """Metrics of each query. `values[name]` is (Q,), in the order of `query_ids`; 1 means full marks.

    >>> PerQuery(("q1", "q2"), {"R@1": np.array([1.0, 0.0])}).means()
    {'R@1': 0.5}
    """

    query_ids: tuple[str, ...]
    values: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        for name, values in self.values.items():
            if values.shape != (len(self.query_ids),):
                raise ValueError(f"{name}: {values.shape} values for {len(self.query_ids)} queries")

    def means(self) -> dict[str, float]:
        """The mean of each metric over the queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def concatenate(parts: Iterable[PerQuery]) -> PerQuery:
    """Join metrics of disjoint sets of queries.

    Raises:
        ValueError: there is no part, the parts hold different metrics, or a query occurs twice.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("there is nothing to concatenate")
    names = list(parts[0].values)
    if any(list(part.values) != names for part in parts):
        raise ValueError("the parts hold different metrics")
    query_ids = tuple(query_id for part in parts for query_id in part.query_ids)
    if len(set(query_ids)) != len(query_ids):
        raise ValueError("a query occurs in two parts")
    return PerQuery(
        query_ids, {name: np.concatenate([part.values[name] for part in parts]) for name in names}
    )


def join(queries: Sequence[Query], values: Mapping[str, T]) -> list[T]:
    """The value of each query, in the order of `queries`.

    Raises:
        ValueError: a query occurs twice, has no value, or a value belongs to no query.

    >>> join([Query("a", "v", "x"), Query("b", "v", "y")], {"b": 2, "a": 1})
    [1, 2]
    """
    query_ids = [query.query_id for query in queries]
    known = set(query_ids)
    if len(known) != len(query_ids):
        raise ValueError("a query id occurs twice")
    missing, extra = known - values.keys(), values.keys() - known
    if missing or extra:
        raise ValueError(f"queries without a value: {_some(missing)}; values without a query: {_some(extra)}")
    return [values[query_id] for query_id in query_ids]


def _some(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first or "none"
