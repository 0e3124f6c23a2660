"""`dciml train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

SHIPPED = "configs"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train)


def train(
    config: Annotated[
        Path, typer.Argument(help="A YAML file of settings. Those of configs/ come with dciml.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run and its model. Default: runs/NAME, NAME from the settings."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, for example training.epochs=3. May be repeated."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT from its last checkpoint.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train both branches from (video, sentence) pairs; no moment is read."""
    from dciml.config import load_config
    from dciml.recipes.train import train as run

    resolved = load_config(_settings_file(config), settings or [])
    folder = out or Path("runs") / resolved.name
    # With several processes each runs this command; one of them speaks.
    first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    try:
        run(resolved, folder, resume=resume, quiet=quiet)
    except KeyboardInterrupt as interrupt:
        if first:
            typer.echo(
                f"dciml: {interrupt or 'stopped; go on with --resume from the last checkpoint'}", err=True
            )
        raise typer.Exit(130) from None
    if first:
        typer.echo(f"model: {folder}")


def _settings_file(path: Path) -> Path:
    """The file; where there is none, the one of configs/ that came with dciml, so that any folder will do."""
    if path.exists() or path.parts[:1] != (SHIPPED,):
        return path
    package = Path(__file__).parents[1]  # an installed one holds them, a checkout has them beside src/
    shipped = [root / path for root in (package, package.parents[1])]
    return next((file for file in shipped if file.is_file()), path)
