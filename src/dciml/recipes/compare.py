"""Evaluations side by side: the same row of each report, with intervals, and the rows that know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dciml.errors import DataError
from dciml.recipes.report import Report, Table, read_report

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
    names = [report.run for report in reports]
    return {
        (report.run if names.count(report.run) == 1 else str(path)): report
        for path, report in zip(paths, reports, strict=True)
    }


def _differences(reports: dict[str, Report]) -> list[str]:
    """Sentences about runs that were not measured on the same queries and corpus as the first."""
    (first_name, first), *others = reports.items()
    found = []
    for name, report in others:
        for field, what in (
            ("data", "data"),
            ("split", "split"),
            ("num_videos", "number of videos"),
            ("num_queries", "number of queries"),
            ("num_queries_with_moments", "number of queries with moments"),
        ):
            here, there = getattr(report, field), getattr(first, field)
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
