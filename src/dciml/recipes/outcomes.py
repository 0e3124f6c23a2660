"""What each sentence of an evaluation got, kept so that runs can be compared sentence by sentence.

Two runs that answer the same sentences share what makes a sentence easy or hard, so the interval of their difference
is far narrower than the intervals of their figures let one think.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dciml.errors import DataError, Where
from dciml.files import read_json, write_json
from dciml.folders import refuse_foreign_file
from dciml.metrics import Bootstrap, FloatArray, Interval, PerQuery
from dciml.recipes.report import Table, in_percent, names_apart
from dciml.types import Query

FORMAT: Literal["dciml-outcomes-1"] = "dciml-outcomes-1"
STRICT = ConfigDict(extra="forbid")
SAME_DATA = "evaluate both on the same split of the same data folder, with the same --queries"


@dataclass(frozen=True)
class Protocol:
    """One protocol: of each query its id, its video's id, and `values[metric]`, 1 where it is right."""

    __pydantic_config__ = STRICT

    query_ids: tuple[str, ...]
    video_ids: tuple[str, ...]
    values: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, queries: Sequence[Query], scores: PerQuery) -> Protocol:
        """The metrics of these queries, which are all that `scores` has."""
        videos = {query.query_id: query.video_id for query in queries}
        owners = tuple(videos[query_id] for query_id in scores.query_ids)
        values = {name: tuple(column.tolist()) for name, column in scores.values.items()}
        return cls(scores.query_ids, owners, values)

    def scores(self, metrics: Sequence[str]) -> dict[str, FloatArray]:
        """Some metrics, each (Q,), in the order of sorted query ids."""
        order = np.argsort(np.array(self.query_ids))
        return {name: np.array(self.values[name], dtype=np.float64)[order] for name in metrics}


@dataclass(frozen=True)
class Outcomes:
    """Of one run: `tables` by the protocol's name. `data` names the data and the very queries, as in a report."""

    __pydantic_config__ = STRICT

    run: str
    data: str
    split: str
    num_videos: int
    tables: dict[str, Protocol]
    format: Literal["dciml-outcomes-1"] = FORMAT

    def write(self, path: Path) -> None:
        """Write JSON, atomically."""
        write_json(path, asdict(self))


def is_outcomes(path: Path) -> bool:
    """Whether a file says that it holds outcomes, of whatever version."""
    if not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and str(content.get("format")).startswith("dciml-outcomes-")


def read_outcomes(path: Path) -> Outcomes:
    """Read a file of outcomes.

    Raises:
        DataError: no such file, not JSON, or not of this form; the message names the field.
    """
    content = read_json(path)
    mend = "write it again with `dciml evaluate MODEL --data DATA --outcomes FILE`"
    try:
        found = TypeAdapter(Outcomes).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        what = f"these are not outcomes of the form {FORMAT} ({first['msg']})"
        raise DataError(what, where=Where(path, field=field), mend=mend) from error
    for name, table in found.tables.items():
        columns = [table.query_ids, table.video_ids, *table.values.values()]
        if len({len(column) for column in columns}) != 1 or len(set(table.query_ids)) != len(table.query_ids):
            what = "there is not one value for each query id"
            raise DataError(what, where=Where(path, field=f"tables.{name}"), mend=mend)
    return found


def refuse_other_than_outcomes(path: Path) -> None:
    """Refuse to write outcomes over anything else. Raises DataError."""
    refuse_foreign_file(path, "outcomes of an evaluation", is_outcomes)


def together(runs: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of one model on several corpora as if these were one; ids become `place/id`.

    Protocols and metrics that one of them lacks are left out.
    """
    tables = {
        name: Protocol(
            tuple(f"{place}/{i}" for place, own in enumerate(every) for i in own.query_ids),
            tuple(f"{place}/{i}" for place, own in enumerate(every) for i in own.video_ids),
            {metric: tuple(value for own in every for value in own.values[metric]) for metric in metrics},
        )
        for name, every, metrics in _in_all(runs)
    }
    return replace(
        runs[0],
        data=" + ".join(run.data for run in runs),
        num_videos=sum(run.num_videos for run in runs),
        tables=tables,
    )


def _in_all(runs: Sequence[Outcomes]) -> Iterator[tuple[str, list[Protocol], list[str]]]:
    """The protocols that all runs have: name, that of each run, and the metrics that all have, of which there are."""
    for name, table in runs[0].tables.items():
        every = [run.tables[name] for run in runs if name in run.tables]
        metrics = [metric for metric in table.values if all(metric in own.values for own in every)]
        if len(every) == len(runs) and metrics:
            yield name, every, metrics


def differences(
    ours: Sequence[Outcomes], others: Sequence[Outcomes], num_resamples: int = 1000, seed: int = 9527
) -> dict[str, dict[str, Interval]]:
    """By protocol and metric, in points: the mean over our runs less the mean over the others, sentence by sentence.

    The interval is a 95 % bootstrap over videos of that difference. Seeds are averaged first, so it tells how sure one
    may be of other videos, not of other seeds.

    Raises:
        DataError: the runs were not evaluated on the same queries in the same corpus.
    """
    first = ours[0]
    for run in (*ours, *others):
        if (run.data, run.split, run.num_videos) != (first.data, first.split, first.num_videos):
            what = f"{run.run} and {first.run} were not evaluated on the same queries and videos"
            raise DataError(what, mend=SAME_DATA)
    found = {}
    for name, every, metrics in _in_all((*ours, *others)):
        table = every[0]
        if any(sorted(own.query_ids) != sorted(table.query_ids) for own in every):
            raise DataError(f"the runs have other queries than each other in {name}", mend=SAME_DATA)
        sides = [[own.scores(metrics) for own in part] for part in (every[: len(ours)], every[len(ours) :])]
        by_id = sorted(zip(table.query_ids, table.video_ids, strict=True))
        apart = {
            metric: np.mean([own[metric] for own in sides[0]], axis=0)
            - np.mean([own[metric] for own in sides[1]], axis=0)
            for metric in metrics
        }
        queries = [Query(query_id, video_id, "") for query_id, video_id in by_id]
        scores = PerQuery(tuple(query_id for query_id, _ in by_id), apart)
        found[name] = in_percent(Bootstrap(queries, num_resamples, seed).means(scores))
    return found


def compare_outcomes(paths: Sequence[Path]) -> tuple[Table, ...]:
    """The first run less each of the others: a table a protocol, a row for each other run.

    Raises:
        DataError: a file cannot be read, there is only one, or the runs cannot be compared.
    """
    first, *others = [read_outcomes(path) for path in paths]
    if not others:
        raise DataError(
            "there is nothing to compare with", where=paths[0], mend="name a second file of outcomes"
        )
    names = names_apart([other.run for other in others], paths[1:])
    rows: dict[str, dict[str, dict[str, Interval]]] = {}
    for name, other in zip(names, others, strict=True):
        for table, found in differences([first], [other]).items():
            rows.setdefault(table, {})[f"{first.run} − {name}"] = found
    about = "Differences in points, sentence by sentence. An interval that leaves out 0 is a difference."
    return tuple(Table(name, about, len(first.tables[name].query_ids), found) for name, found in rows.items())
