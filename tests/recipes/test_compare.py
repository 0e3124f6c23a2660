"""Runs side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dciml.cli.evaluate import register
from dciml.errors import DataError
from dciml.metrics.intervals import Interval
from dciml.recipes.report import Report, Table, compare, read_report


def report(run: str, first: float, width: float = 2.0) -> Report:
    def figure(value: float) -> Interval:
        return Interval(value, value - width, value + width)

    rows = {"model": {"R@1": figure(first), "R@10": figure(first + 10)}, "chance": {"R@1": figure(3.0)}}
    return Report(
        run=run,
        data="corpus, queries 0123",
        split="test",
        num_videos=30,
        num_queries=90,
        num_queries_with_moments=90,
        fingerprint="f",
        answer={"num_videos": 100},
        seed=1,
        num_resamples=1000,
        versions={"dciml": "0"},
        notes=("a note",),
        tables=(Table("VR", "The right video.", 90, rows),),
    )


def written(folder: Path, *reports: Report) -> list[Path]:
    paths = []
    for number, one in enumerate(reports):
        path = folder / f"run{number}" / "report.json"
        one.write(path)
        paths.append(path.parent if number % 2 else path)
    return paths


def test_compare_shows_each_run_and_the_reference_rows(tmp_path: Path) -> None:
    found = compare(written(tmp_path, report("plain", 10.0), report("mutual", 20.0)))
    assert list(found.tables[0].rows) == ["plain", "mutual", "chance"]
    assert found.tables[0].rows["mutual"]["R@1"].value == 20.0
    assert found.headlines[0].startswith("VR R@1 (right video first): mutual leads with 20.0%")
    assert "overlaps with no other" in found.headlines[0]
    assert found.differences == found.warnings == ()


def test_compare_says_when_intervals_overlap(tmp_path: Path) -> None:
    found = compare(written(tmp_path, report("plain", 10.0), report("mutual", 13.0)))
    assert found.headlines[0].endswith("its interval overlaps with that of plain.")


def test_compare_hands_on_what_the_reports_warn_of(tmp_path: Path) -> None:
    leaked = replace(report("mutual", 20.0), warnings=("it knew them",))
    paths = written(tmp_path, report("plain", 10.0), leaked)
    assert compare(paths).warnings == ("mutual: it knew them",)
    app = typer.Typer()
    register(app)
    shown = CliRunner().invoke(app, ["compare", *map(str, paths)])
    assert "Warning: mutual: it knew them." in shown.stdout


def test_compare_warns_of_other_data_and_leaves_out_the_references(tmp_path: Path) -> None:
    other = replace(report("mutual", 20.0), num_queries=80, data="corpus, queries 4567")
    found = compare(written(tmp_path, report("plain", 10.0), other))
    assert len(found.differences) == 2
    assert "mutual and plain differ in their number of queries: 80 and 90" in found.differences
    assert list(found.tables[0].rows) == ["plain", "mutual"]


def test_compare_tells_runs_of_the_same_name_apart_by_path(tmp_path: Path) -> None:
    paths = written(tmp_path, report("same", 10.0), report("same", 20.0))
    assert list(compare(paths).tables[0].rows)[:2] == [str(path) for path in paths]


def test_compare_names_the_rows_when_one_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run has the row 'modle'.*chance, model"):
        compare(written(tmp_path, report("plain", 10.0)), row="modle")


def test_a_file_that_is_no_report_is_a_user_error(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    report("plain", 1.0).write(file)
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["seed"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"field seed: this is not a report"):
        read_report(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_report(tmp_path / "absent.json")


def test_the_command_prints_runs_with_intervals_within_120_columns(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    paths = written(tmp_path, report("plain", 10.0), report("mutual", 20.0))
    result = CliRunner().invoke(app, ["compare", *map(str, paths)])
    assert result.exit_code == 0, result.output
    assert "20.0 [18.0, 22.0]" in result.output
    assert "chance" in result.output
    assert max(len(line) for line in result.output.splitlines()) <= 120
