"""What an evaluation found, as plain records that go to JSON and come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dciml.errors import DataError, Where
from dciml.files import read_json, write_json
from dciml.folders import refuse_foreign_file
from dciml.metrics.intervals import Interval

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


def refuse_other(path: Path) -> None:
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
