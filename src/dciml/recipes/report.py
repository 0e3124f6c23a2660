"""What an evaluation found: as records that go to JSON and back, in plain words, side by side, for others' scorers.

A submission, as the scorer of TVR reads it, is one JSON object: `video2idx` gives each video of the corpus a
number; `VR`, `SVMR` and `VCMR` list, per query, `{"desc_id", "desc", "predictions": [[video number, start, end,
score], …]}`, best first (VR: both times 0).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dciml.errors import DataError, Where
from dciml.files import atomic_path, read_json, write_json
from dciml.folders import refuse_foreign_file
from dciml.metrics import Interval
from dciml.types import Query, SearchHit

FORMAT: Literal["dciml-report-1"] = "dciml-report-1"
REPORT_FILE = "report.json"
MEDIAN_RANK = "median rank"
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Table:
    """One protocol: `rows[row][metric]` with its interval, in percent (mIoU: times 100; median rank: a rank).

    `about` says in a sentence what is counted; `num_queries` is how many sentences the means are over.
    """

    __pydantic_config__ = STRICT

    name: str
    about: str
    num_queries: int
    rows: dict[str, dict[str, Interval]]


@dataclass(frozen=True)
class Report:
    """A whole evaluation. `notes` are sentences that a reader must see beside the numbers, `warnings` say why these may
    be worth less than they seem.

    `data` names the data and the very queries: the folder's name and a checksum of the query ids.
    """

    __pydantic_config__ = STRICT

    run: str
    data: str
    split: str
    num_videos: int
    num_queries: int
    num_queries_with_moments: int
    fingerprint: str
    answer: dict[str, str | int | float | bool | None]
    seed: int
    num_resamples: int
    versions: dict[str, str]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...] = ()
    format: Literal["dciml-report-1"] = FORMAT

    def table(self, name: str) -> Table:
        """The table of a protocol. Raises KeyError when the evaluation has none of that name."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)

    def value(self, table: str, row: str, metric: str) -> float:
        """One number, for example `report.value("SVMR", "model", "R@1, IoU=0.5")`."""
        return self.table(table).rows[row][metric].value

    def write(self, path: Path) -> None:
        """Write JSON, atomically."""
        write_json(path, asdict(self))


def read_report(path: Path) -> Report:
    """Read a report, or the `report.json` of a folder.

    Raises:
        DataError: no such file, not JSON, or not a report of this format; the message names the field.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    content = read_json(file)
    try:
        return TypeAdapter(Report).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise DataError(
            f"this is not a report of the form {FORMAT} ({first['msg']})",
            where=Where(file, field=field),
            mend="write it again with `dciml evaluate MODEL --data DATA --json FILE`",
        ) from error


def refuse_other_than_report(path: Path) -> None:
    """Refuse to write a report over anything but a report, of whatever version. Raises DataError."""

    def is_report(file: Path) -> bool:
        content = read_json(file)
        return isinstance(content, dict) and str(content.get("format")).startswith("dciml-report-")

    refuse_foreign_file(path, "a report of an evaluation", is_report)


def in_percent(intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    """Fractions as percentages.

    >>> in_percent({"R@1": Interval(0.5, 0.25, 0.75)})
    {'R@1': Interval(value=50.0, low=25.0, high=75.0)}
    """
    return {name: Interval(100 * i.value, 100 * i.low, 100 * i.high) for name, i in intervals.items()}


LESS = ("zero-shot", "untrained")


def headlines(report: Report, row: str = "model") -> list[str]:
    """One sentence a protocol, with the rows to compare with.

    Two figures are said to differ only when their intervals do not overlap.
    """
    names = {table.name for table in report.tables}
    found = [
        _sentence(
            report, "VR", row, "R@1", "The right video comes first for {} of the sentences", ("chance",)
        ),
        _sentence(report, "VR", row, "R@10", "It is among the first 10 for {}", ("chance",)),
    ]
    if "SVMR" in names:
        text = "Given the video, the first span fits (IoU ≥ 0.5) for {}"
        found.append(_sentence(report, "SVMR", row, "R@1, IoU=0.5", text, ("blind spans", "chance")))
        text = "In the whole corpus, a right moment (IoU ≥ 0.5) is among the first 10 answers for {}"
        others = ("retrieval only + blind spans", "retrieval only + whole videos")
        found.append(_sentence(report, "VCMR, strict", row, "R@10, IoU=0.5", text, others))
        text = "The lenient count (R@10, IoU ≥ 0.5, any of 10 proposals) is {}"
        metric = "R@10, IoU=0.5, N_p=10"
        found.append(_sentence(report, "VCMR, lenient", row, metric, text, others[:1]))
    return found


def _sentence(report: Report, table: str, row: str, metric: str, text: str, others: Sequence[str]) -> str:
    rows = report.table(table).rows
    own = rows[row][metric]
    parts = [
        f"{_relation(own, rows[other][metric])} {other} ({rows[other][metric].value:.1f}%)"
        for other in (*others, *LESS)
        if metric in rows.get(other, {}) and other != row
    ]
    return f"{text.format(f'{own.value:.1f}%')}: {', '.join(parts)}."


def _relation(own: Interval, other: Interval) -> str:
    if own.low > other.high:
        return "above"
    if own.high < other.low:
        return "BELOW"
    return "not clearly apart from"


REFERENCE_ROWS = ("blind spans", "chance")
HEADLINES = (
    ("VR", "R@1", "right video first"),
    ("VR", "R@10", "right video among the first 10"),
    ("SVMR", "R@1, IoU=0.5", "video given, first span with IoU ≥ 0.5"),
    ("VCMR, strict", "R@10, IoU=0.5", "right moment among the first 10 of the corpus, IoU ≥ 0.5"),
)


@dataclass(frozen=True)
class Comparison:
    """Tables whose rows are runs, and sentences: on who leads, and on runs that cannot be compared.

    `warnings` are those of the reports: why the figures of a run may be worth less than they seem.
    """

    tables: tuple[Table, ...]
    headlines: tuple[str, ...]
    differences: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(paths: Sequence[Path], row: str = "model") -> Comparison:
    """Compare runs.

    Args:
        paths: report files, or folders that hold a report.json.
        row: the row of each report to show.
    Raises:
        DataError: a report cannot be read, or no run has such a row.
    """
    reports = named_reports(paths)
    if not any(row in table.rows for report in reports.values() for table in report.tables):
        rows = sorted({name for report in reports.values() for table in report.tables for name in table.rows})
        raise DataError(f"no run has the row {row!r}", mend=f"choose one of: {', '.join(rows)}")
    differences = tuple(_differences(reports))
    tables = tuple(_side_by_side(reports, row, with_references=not differences))
    headlines = tuple(
        text for text in (_headline(tables, *entry, list(reports)) for entry in HEADLINES) if text
    )
    warnings = tuple(f"{name}: {text}" for name, report in reports.items() for text in report.warnings)
    return Comparison(tables, headlines, differences, warnings)


def named_reports(paths: Sequence[Path]) -> dict[str, Report]:
    """Reports keyed by run name; where two runs have the same name, by their path."""
    reports = [read_report(path) for path in paths]
    names = names_apart([report.run for report in reports], paths)
    return dict(zip(names, reports, strict=True))


def names_apart(runs: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The names of runs; of those that several have, the paths instead.

    >>> names_apart(["a", "b", "a"], [Path("x"), Path("y"), Path("z")])
    ['x', 'b', 'z']
    """
    return [run if runs.count(run) == 1 else str(path) for run, path in zip(runs, paths, strict=True)]


def _differences(reports: dict[str, Report]) -> list[str]:
    """Sentences about runs that were not measured on the same queries and corpus as the first."""
    (first_name, first), *others = reports.items()
    found = []
    for name, report in others:
        for compared, what in (
            ("data", "data"),
            ("split", "split"),
            ("num_videos", "number of videos"),
            ("num_queries", "number of queries"),
            ("num_queries_with_moments", "number of queries with moments"),
        ):
            here, there = getattr(report, compared), getattr(first, compared)
            if here != there:
                found.append(f"{name} and {first_name} differ in their {what}: {here} and {there}")
    return found


def _side_by_side(reports: dict[str, Report], row: str, with_references: bool) -> list[Table]:
    names = dict.fromkeys(table.name for report in reports.values() for table in report.tables)
    found = []
    for name in names:
        of_name = {run: t for run, report in reports.items() for t in report.tables if t.name == name}
        rows = {run: table.rows[row] for run, table in of_name.items() if row in table.rows}
        first = next(iter(of_name.values()))
        if with_references:
            rows |= {
                reference: first.rows[reference] for reference in REFERENCE_ROWS if reference in first.rows
            }
        if rows:
            found.append(Table(name, first.about, first.num_queries, rows))
    return found


def _headline(
    tables: Sequence[Table], name: str, metric: str, meaning: str, runs: Sequence[str]
) -> str | None:
    table = next((table for table in tables if table.name == name), None)
    figures = {run: table.rows[run][metric] for run in runs if table and metric in table.rows.get(run, {})}
    if len(figures) < 2:
        return None
    best = max(figures, key=lambda run: figures[run].value)
    near = [run for run, figure in figures.items() if run != best and figure.high >= figures[best].low]
    text = f"{name} {metric} ({meaning}): {best} leads with {figures[best].value:.1f}%"
    if near:
        return f"{text}; its interval overlaps with that of {', '.join(near)}."
    return f"{text}; its interval overlaps with no other."


BEGINNING = '{"video2idx": '
TASKS = ("VR", "SVMR", "VCMR")
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Submission:
    """Predictions of all tasks, (n, 4) per query id: video number, start, end, score; best first."""

    video_numbers: Mapping[str, int]
    predictions: Mapping[str, dict[str, Rows]] = field(default_factory=lambda: {task: {} for task in TASKS})

    @classmethod
    def of_corpus(cls, video_ids: Iterable[str]) -> Submission:
        """An empty submission; videos are numbered in the order of their ids."""
        return cls({video_id: number for number, video_id in enumerate(sorted(video_ids))})

    def add_videos(self, query_id: str, video_ids: Sequence[str], scores: Sequence[float]) -> None:
        """VR: videos of the corpus, best first."""
        rows = [
            (self.video_numbers[name], 0.0, 0.0, score) for name, score in zip(video_ids, scores, strict=True)
        ]
        self.predictions["VR"][query_id] = np.array(rows, dtype=np.float64).reshape(-1, 4)

    def add_hits(self, task: str, query_id: str, hits: Sequence[SearchHit]) -> None:
        """SVMR or VCMR: hits, best first."""
        rows = [
            (self.video_numbers[hit.video_id], hit.start_seconds, hit.end_seconds, hit.score) for hit in hits
        ]
        self.predictions[task][query_id] = np.array(rows, dtype=np.float64).reshape(-1, 4)

    def write(self, path: Path, queries: Sequence[Query]) -> None:
        """Write the file, atomically and query by query, so that it is never in memory as a whole."""
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(BEGINNING + json.dumps(dict(self.video_numbers), ensure_ascii=False))
            for task in TASKS:
                file.write(f',\n"{task}": [')
                for number, entry in enumerate(_entries(self.predictions[task], queries)):
                    file.write(
                        (",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False, allow_nan=False)
                    )
                file.write("\n]")
            file.write("}\n")


def refuse_other_than_submission(path: Path) -> None:
    """Refuse to write a submission over anything but a submission. Raises DataError."""

    def is_submission(file: Path) -> bool:
        with file.open("rb") as opened:
            return opened.read(len(BEGINNING)) == BEGINNING.encode()

    refuse_foreign_file(path, "a submission", is_submission)


def _entries(predictions: Mapping[str, Rows], queries: Sequence[Query]) -> Iterable[dict[str, object]]:
    for query in queries:
        if query.query_id in predictions:
            rows = [[int(row[0]), *row[1:].tolist()] for row in predictions[query.query_id]]
            yield {"desc_id": query.query_id, "desc": query.sentence, "predictions": rows}
