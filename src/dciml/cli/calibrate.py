"""`dciml calibrate`: arguments and printing; the work is in `recipes.calibrate` and `recipes.nothing_found`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from dciml.datasets.folder import DataFolder
    from dciml.metrics.reliability import Bin

ModelArgument = Annotated[Path, typer.Argument(help="Model folder; its calibration.json is written.")]
DataOption = Annotated[Path, typer.Option("--data", help="Data folder, as written by `dciml import`.")]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", help="Calibrate on this split. Default: what training held out of its own split."
    ),
]
ReportOption = Annotated[
    str | None, typer.Option("--report", metavar="SPLIT", help="Measure the calibration on this split.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(calibrate)


def calibrate(
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = None,
    report: ReportOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Fit what turns a model's scores into probabilities, on sentences that it was not trained on."""
    from dciml.build import load_model
    from dciml.datasets.folder import DataFolder
    from dciml.recipes.calibrate import KnownPairs, calibrate_run
    from dciml.recipes.calibrate import calibrate as run

    folder = DataFolder.open(data)
    if split is None:
        found = calibrate_run(model, folder, device)
    else:
        known = KnownPairs.of_split(folder, split)
        found = run(load_model(model, device, calibrated=False), known)
    typer.echo(
        f"{model}: calibrated on {found.num_sentences} sentences in a corpus of {found.num_videos} videos."
    )
    if report is not None:
        _report(model, folder, report, device)


def _report(model: Path, data: DataFolder, split: str, device: str) -> None:
    from rich.console import Console

    from dciml.build import load_model
    from dciml.cli.evaluate import print_table, wide
    from dciml.metrics.intervals import Bootstrap
    from dciml.recipes.evaluate import make_task
    from dciml.recipes.nothing_found import nothing_found

    loaded = load_model(model, device)
    loaded.check_store(data.store)
    assert loaded.calibration is not None
    task = make_task(data, split, windows=loaded.windows)
    found = nothing_found(loaded.engine, task, loaded.calibration, loaded.answer, Bootstrap(task.queries))
    console = wide(Console())
    _print_bins("There is such a video", found.answers, console)
    _print_bins("The first video is the right one", found.first_videos, console)
    print_table(found.table, console)


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
