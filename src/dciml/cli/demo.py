"""`dciml demo`: arguments only; the work is in `recipes.demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[Path, typer.Option("--out", help="Folder for videos, features, model, index and page.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Another seed draws another corpus.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Processes that draw and decode videos.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting of the training: key=value; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(demo)


def demo(
    out: OutOption = Path("demo-out"),
    seed: SeedOption = 7,
    workers: WorkersOption = 2,
    set_: SetOption = None,
) -> None:
    """The whole job on made-up videos: draw, extract, train, evaluate, index, answer; ends with an HTML page."""
    from dciml.recipes.demo import DemoOptions, run_demo

    run_demo(out, DemoOptions(seed=seed, workers=workers, overrides=tuple(set_ or ())))
