"""The demo's recipe: its figures, its settings, and (slow) the whole of it on a tiny corpus."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dciml.config import load_config
from dciml.demo.corpus import CorpusSize
from dciml.metrics.intervals import Interval
from dciml.recipes.demo import COLUMNS, DemoOptions, figures_of, run_demo
from dciml.recipes.report import Report, Table


def report_of(tables: dict[str, dict[str, dict[str, float]]]) -> Report:
    """A report with these values, and intervals of no width."""
    made = [
        Table(
            name,
            "",
            3,
            {row: {m: Interval(v, v, v) for m, v in values.items()} for row, values in rows.items()},
        )
        for name, rows in tables.items()
    ]
    return Report("demo", "data", "test", 5, 3, 3, "f", {}, 0, 10, {}, (), tuple(made))


def test_figures_join_the_tables_by_row_name() -> None:
    report = report_of(
        {
            "VR": {"chance": {"R@1": 2.0, "R@10": 20.0}, "model": {"R@1": 50.0, "R@10": 90.0}},
            "SVMR": {"blind spans": {"R@1, IoU=0.5": 8.0}, "model": {"R@1, IoU=0.5": 40.0}},
            "VCMR, strict": {"chance": {"R@1, IoU=0.5": 0.1, "R@10, IoU=0.5": 1.0}},
        }
    )
    figures = figures_of(report)
    assert figures.columns == tuple(COLUMNS)
    assert [(row.name, row.values, row.is_model) for row in figures.rows] == [
        ("DCIML, trained", (50.0, 90.0, 40.0, None, None), True),
        ("blind spans", (None, None, 8.0, None, None), False),
        ("chance", (2.0, 20.0, None, 0.1, 1.0), False),
    ]


def test_shipped_settings_are_valid() -> None:
    from importlib.resources import as_file, files

    with as_file(files("dciml.demo") / "demo.yaml") as path:
        assert load_config(path).name == "demo"


@pytest.mark.slow
def test_the_whole_demo_runs_on_a_tiny_corpus(tmp_path: Path) -> None:
    settings = ("training.epochs=1", "retrieval.hidden=32", "grounding.hidden=32", "training.threads=1")
    options = DemoOptions(size=CorpusSize(10, 4), workers=2, overrides=settings)
    said = io.StringIO()
    page = run_demo(tmp_path, options, Console(file=said, width=120))
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["num_videos"] == 4
    assert page.read_text(encoding="utf-8").count("<video") == 8 * 4
    assert "untrained" in said.getvalue()
    assert "shared space" in said.getvalue()
    assert str(page) in said.getvalue()
