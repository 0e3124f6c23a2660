"""`dciml evaluate` and `dciml compare`: arguments and tables; the work is in `recipes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dciml.cli.options import WindowOption, with_windows

if TYPE_CHECKING:
    from rich.console import Console

    from dciml.metrics.intervals import Interval
    from dciml.recipes.report import Report, Table
    from dciml.search.engine import Engine

MIN_WIDTH = 118  # a row with intervals; a pipe counts as 80 columns wide, which would cut numbers off
MAX_COLUMNS = 4
ROUNDING = 1e-6
SEPARATOR = ", "

ModelArgument = Annotated[Path, typer.Argument(help="Model folder, as written by `dciml train`.")]
DataOption = Annotated[Path, typer.Option("--data", help="Data folder, as written by `dciml import`.")]
SplitOption = Annotated[str, typer.Option("--split", help="Split to evaluate; its videos are the corpus.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write the report here, for `dciml compare`.")
]
SubmissionOption = Annotated[
    Path | None, typer.Option("--submission", help="Write predictions here, in the form of TVR's scorer.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
QueriesOption = Annotated[
    int | None,
    typer.Option(
        "--queries", min=1, help="Only so many queries, drawn by a hash of their ids; corpus whole."
    ),
]
BesideOption = Annotated[
    list[str] | None,
    typer.Option(
        "--beside", metavar="NAME=MODEL", help="A further model, as a row of that name; repeatable."
    ),
]
RunsArgument = Annotated[list[Path], typer.Argument(help="Report files, or folders that hold a report.json.")]
RowOption = Annotated[str, typer.Option("--row", help="The row of each report to show.")]


def register(app: typer.Typer) -> None:
    """Add both commands to the program."""
    app.command()(evaluate)
    app.command()(compare)


def evaluate(
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = "test",
    json: JsonOption = None,
    submission: SubmissionOption = None,
    device: DeviceOption = "cpu",
    queries: QueriesOption = None,
    beside: BesideOption = None,
    window_seconds: WindowOption = None,
) -> None:
    """Measure a model: video retrieval, grounding, and both together, beside rows that know less."""
    from rich.console import Console

    from dciml.build import load_model
    from dciml.datasets.folder import DataFolder
    from dciml.recipes.evaluate import MODEL, EvaluateOptions
    from dciml.recipes.evaluate import evaluate as run
    from dciml.recipes.zero_shot import zero_shot_engine

    _refuse_taken(json, submission)
    loaded, folder = with_windows(load_model(model, device), window_seconds), DataFolder.open(data)
    loaded.check_store(folder.store)
    zero_shot = zero_shot_engine(loaded.engine, folder.store)
    others: dict[str, Engine] = {"zero-shot": zero_shot} if zero_shot else {}
    named = dict(map(_named_model, beside or []))
    for name, path in named.items():
        other = load_model(path, device)
        other.check_store(folder.store)
        others[name] = other.engine
    options = EvaluateOptions(
        run=model.resolve().name,
        num_queries=queries,
        submission=submission,
        progress=True,
        calibration=loaded.calibration,
        windows=loaded.windows,
        folders={MODEL: model} | named,
    )
    report = run(loaded.engine, folder, split, loaded.answer, others=others, options=options)
    if json:
        report.write(json)
    print_report(report, wide(Console()))


def _refuse_taken(json: Path | None, submission: Path | None) -> None:
    from dciml.recipes import report as reports
    from dciml.recipes import submission as submissions

    if json is not None and submission is not None and json.resolve() == submission.resolve():
        raise typer.BadParameter("it is the file of --json, too", param_hint="--submission")
    if json is not None:
        reports.refuse_other(json)
    if submission is not None:
        submissions.refuse_other(submission)


def _named_model(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise typer.BadParameter(f"{text!r} is not of the form NAME=MODEL", param_hint="--beside")
    return name, Path(path)


def compare(runs: RunsArgument, row: RowOption = "model") -> None:
    """Print evaluations side by side, with their intervals."""
    from rich.console import Console

    from dciml.recipes.compare import compare as run

    comparison = run(runs, row)
    console = wide(Console())
    for table in comparison.tables:
        print_table(table, console)
    for difference in comparison.differences:
        console.print(f"Not comparable: {difference}.", style="bold red", markup=False, highlight=False)
    print_warnings(comparison.warnings, console)
    for headline in comparison.headlines:
        console.print(headline, markup=False, highlight=False)


def print_report(report: Report, console: Console) -> None:
    """Print all tables, then the notes, then the headlines, so that the end of the screen says the most."""
    from dciml.recipes.headlines import headlines

    for table in report.tables:
        print_table(table, console)
    corpus = f"{report.num_queries} queries in a corpus of {report.num_videos} videos"
    lines = [f"{report.run}: split {report.split}, {corpus}.", *report.notes, "", *headlines(report)]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    print_warnings(report.warnings, console)


def print_warnings(warnings: Sequence[str], console: Console) -> None:
    """Print why figures may be worth less than they seem."""
    for warning in warnings:
        console.print(f"Warning: {warning}.", style="bold red", markup=False, highlight=False)


def print_table(table: Table, console: Console) -> None:
    """Print one protocol: a block of rows for each threshold, below one head of columns where they are alike."""
    from rich import box
    from rich.table import Table as Grid

    console.print(f"{table.name}  ({table.num_queries} queries)", style="bold", markup=False, highlight=False)
    console.print(f"{table.about} Percent, with 95 % intervals.", markup=False, highlight=False)
    metrics = list(dict.fromkeys(metric for row in table.rows.values() for metric in row))
    for columns, blocks in _layout(metrics):
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        grid.add_column(min_width=max(len(name) for name in table.rows))
        for label in columns:
            grid.add_column(label, justify="right", no_wrap=True)
        for heading in blocks:
            if heading:
                grid.add_row(heading, style="bold")
            names = [f"{label}{SEPARATOR}{heading}" if heading else label for label in columns]
            for row, figures in table.rows.items():
                if any(name in figures for name in names):
                    grid.add_row(row, *(_cell(name, figures.get(name)) for name in names))
        console.print(grid, highlight=False)


def _layout(metrics: Sequence[str]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Columns and, below each other, the blocks that share them; a metric is "column" or "column, block".

    >>> _layout(["R@1, IoU=0.5", "R@1, IoU=0.7", "R@5, IoU=0.5", "R@5, IoU=0.7", "mIoU"])
    [(('R@1', 'R@5'), ['IoU=0.5', 'IoU=0.7']), (('mIoU',), [''])]
    """
    blocks: dict[str, list[str]] = {}
    for metric in metrics:
        label, _, heading = metric.partition(SEPARATOR)
        blocks.setdefault(heading, []).append(label)
    found: dict[tuple[str, ...], list[str]] = {}
    for heading, labels in blocks.items():
        for start in range(0, len(labels), MAX_COLUMNS):
            found.setdefault(tuple(labels[start : start + MAX_COLUMNS]), []).append(heading)
    return list(found.items())


def _cell(metric: str, interval: Interval | None) -> str:
    """A figure with its interval; the figure alone where they are equal (an expectation).

    >>> from dciml.metrics.intervals import Interval
    >>> _cell("R@1", Interval(12.34, 11.0, 13.71)), _cell("R@1", Interval(5.0, 5.0, 5.0))
    ('12.3 [11.0, 13.7]', '5.0')
    """
    if interval is None:
        return "–"
    numbers = (interval.value, interval.low, interval.high)
    value, low, high = (
        f"{round(number, 1):g}" if metric == "median rank" else f"{number:.1f}" for number in numbers
    )
    return value if interval.high - interval.low < ROUNDING else f"{value} [{low}, {high}]"


def wide(console: Console) -> Console:
    """The console, wide enough for intervals where it is not a person's terminal."""
    if not console.is_terminal and console.width < MIN_WIDTH:
        console.width = MIN_WIDTH
    return console
