"""`dciml evaluate`, `dciml compare` and `dciml calibrate`: arguments and tables; the work is in `recipes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dciml.cli.options import JsonOption, WindowOption, say, with_windows

if TYPE_CHECKING:
    from rich.console import Console

    from dciml.datasets import DataFolder
    from dciml.metrics import Bin, Interval
    from dciml.recipes.evaluate import NothingFound
    from dciml.recipes.report import Report, Table
    from dciml.search import Engine

MIN_WIDTH = 118  # a row with intervals; a pipe counts as 80 columns wide, which would cut numbers off
MAX_COLUMNS = 4
ROUNDING = 1e-6
SEPARATOR = ", "

ModelArgument = Annotated[Path, typer.Argument(help="Model folder, as written by `dciml train`.")]
DataOption = Annotated[Path, typer.Option("--data", help="Data folder, as written by `dciml import`.")]
SplitOption = Annotated[str, typer.Option("--split", help="Split to evaluate; its videos are the corpus.")]
ReportFileOption = Annotated[
    Path | None,
    typer.Option("--json", help="Write the report here, for `dciml compare`; - prints it, and nothing else."),
]
SubmissionOption = Annotated[
    Path | None, typer.Option("--submission", help="Write predictions here, in the form of TVR's scorer.")
]
OutcomesOption = Annotated[
    Path | None,
    typer.Option(
        "--outcomes", help="Write what each query got here, for `dciml compare` sentence by sentence."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
QueriesOption = Annotated[
    int | None,
    typer.Option(
        "--queries",
        min=1,
        help="Only this many queries, drawn by a hash of their ids; the corpus stays whole.",
    ),
]
BesideOption = Annotated[
    list[str] | None,
    typer.Option(
        "--beside", metavar="NAME=MODEL", help="A further model, as a row of that name; repeatable."
    ),
]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(help="Report files, or folders that hold a report.json; or files that --outcomes wrote."),
]
RowOption = Annotated[str, typer.Option("--row", help="The row of each report to show.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(evaluate)
    app.command()(compare)
    app.command()(calibrate)


def evaluate(
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = "test",
    json: ReportFileOption = None,
    submission: SubmissionOption = None,
    outcomes: OutcomesOption = None,
    device: DeviceOption = "cpu",
    queries: QueriesOption = None,
    beside: BesideOption = None,
    window_seconds: WindowOption = None,
) -> None:
    """Measure a model: video retrieval, grounding, and both together, beside rows that know less."""
    from dataclasses import asdict

    from rich.console import Console

    from dciml.datasets import DataFolder
    from dciml.model_folder import load_model
    from dciml.recipes.evaluate import MODEL, EvaluateOptions, zero_shot_engine
    from dciml.recipes.evaluate import evaluate as run

    printed = json == Path("-")
    file = None if printed else json
    _refuse_taken(file, submission, outcomes)
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
        outcomes=outcomes,
        progress=True,
        calibration=loaded.calibration,
        windows=loaded.windows,
        folders={MODEL: model} | named,
    )
    report = run(loaded.engine, folder, split, loaded.answer, others=others, options=options)
    if printed:
        say("", asdict(report), as_json=True)
        return
    if file:
        report.write(file)
    print_report(report, wide(Console()))


def _refuse_taken(json: Path | None, submission: Path | None, outcomes: Path | None) -> None:
    from dciml.recipes.outcomes import refuse_other_than_outcomes
    from dciml.recipes.report import refuse_other_than_report, refuse_other_than_submission

    taken: dict[Path, str] = {}
    for option, file, refuse in (
        ("--json", json, refuse_other_than_report),
        ("--submission", submission, refuse_other_than_submission),
        ("--outcomes", outcomes, refuse_other_than_outcomes),
    ):
        if file is None:
            continue
        if file.resolve() in taken:
            raise typer.BadParameter(f"it is the file of {taken[file.resolve()]}, too", param_hint=option)
        taken[file.resolve()] = option
        refuse(file)


def _named_model(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise typer.BadParameter(f"{text!r} is not of the form NAME=MODEL", param_hint="--beside")
    return name, Path(path)


def compare(runs: RunsArgument, row: RowOption = "model", json: JsonOption = False) -> None:
    """Print evaluations side by side, with their intervals; of outcomes, the first less each other, query by query."""
    from dataclasses import asdict

    from rich.console import Console

    from dciml.recipes.outcomes import compare_outcomes, is_outcomes
    from dciml.recipes.report import compare as run

    if all(map(is_outcomes, runs)):
        tables = compare_outcomes(runs)
        if json:
            say("", {"tables": [asdict(table) for table in tables]}, as_json=True)
            return
        for table in tables:
            print_table(table, wide(Console()))
        return
    comparison = run(runs, row)
    if json:
        say("", asdict(comparison), as_json=True)
        return
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
    from dciml.recipes.report import headlines

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


CalibratedModelArgument = Annotated[
    Path, typer.Argument(help="Model folder; its calibration.json is written.")
]
HeldOutOption = Annotated[
    str | None,
    typer.Option(
        "--split", help="Calibrate on this split. Default: what training held out of its own split."
    ),
]
ReportOption = Annotated[
    str | None, typer.Option("--report", metavar="SPLIT", help="Measure the calibration on this split.")
]


def calibrate(
    model: CalibratedModelArgument,
    data: DataOption,
    split: HeldOutOption = None,
    report: ReportOption = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Fit what turns a model's scores into probabilities, on sentences that it was not trained on."""
    from dataclasses import asdict

    from rich.console import Console

    from dciml.datasets import DataFolder
    from dciml.model_folder import load_model
    from dciml.recipes.calibrate import KnownPairs, calibrate_run
    from dciml.recipes.calibrate import calibrate as run

    folder = DataFolder.open(data)
    if split is None:
        found = calibrate_run(model, folder, device)
    else:
        known = KnownPairs.of_split(folder, split)
        found = run(load_model(model, device, calibrated=False), known)
    told = f"{model}: calibrated on {found.num_sentences} sentences in a corpus of {found.num_videos} videos."
    facts = {"model": model, "sentences": found.num_sentences, "videos": found.num_videos}
    measured = None if report is None else _measured(model, folder, report, device)
    say(told, facts | ({} if measured is None else {"report": asdict(measured)}), as_json=json)
    if measured is not None and not json:
        console = wide(Console())
        _print_bins("There is such a video", measured.answers, console)
        _print_bins("The first video is the right one", measured.first_videos, console)
        print_table(measured.table, console)


def _measured(model: Path, data: DataFolder, split: str, device: str) -> NothingFound:
    from dciml.metrics import Bootstrap
    from dciml.model_folder import load_model
    from dciml.recipes.evaluate import make_task, nothing_found

    loaded = load_model(model, device)
    loaded.check_store(data.store)
    assert loaded.calibration is not None
    task = make_task(data, split, windows=loaded.windows)
    return nothing_found(loaded.engine, task, loaded.calibration, loaded.answer, Bootstrap(task.queries))


def _print_bins(title: str, bins: Sequence[Bin], console: Console) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for heading in ("stated", "answers", "mean stated", "true"):
        table.add_column(heading, justify="right", no_wrap=True)
    for own in bins:
        table.add_row(
            f"{100 * own.low:.0f}–{100 * own.high:.0f} %",
            str(own.count),
            f"{100 * own.confidence:.1f} %",
            f"{100 * own.right:.1f} %",
        )
    console.print(table, highlight=False)
