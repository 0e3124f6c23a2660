"""`dciml teach`: arguments and printing; the work is in `recipes.teach`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dciml.cli.options import DeviceOption

if TYPE_CHECKING:
    from dciml.recipes.home import Home

HomeArgument = Annotated[
    Path,
    typer.Argument(
        metavar="HOME", help="The folder that `dciml serve FOLDER` made, FOLDER.dciml; or FOLDER, beside it."
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a setting of configs/teach.yaml, as training.epochs=80. May be repeated."
    ),
]
UndoOption = Annotated[bool, typer.Option("--undo", help="Go back to the untrained model.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(teach)


def teach(
    home: HomeArgument,
    settings: SettingsOption = None,
    undo: UndoOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    device: DeviceOption = "cpu",
) -> None:
    """Learn from the sentences that were written for moments in the page; kept only if it finds better."""
    with _alone(home, device) as own:
        from dciml.recipes import teach as recipe  # which loads all that training takes

        if undo:
            _print_undone(recipe.undo(own), as_json=as_json)
            return
        try:
            verdict = recipe.teach(own, settings or [], quiet=quiet)
        except KeyboardInterrupt:
            typer.echo("dciml: stopped; nothing was changed", err=True)
            raise typer.Exit(130) from None
        shown = own.taught if verdict.is_better else None
    if as_json:
        typer.echo(json.dumps(verdict.to_json() | {"folder": None if shown is None else str(shown)}))
        return
    for line in verdict.lines():
        typer.echo(line)
    if shown is not None:
        typer.echo(
            f"It is used from now on, by `dciml serve {home}`, `dciml search {home}` and the like. "
            f"The way back: dciml teach {home} --undo"
        )


def _print_undone(was_taught: bool, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"undone": was_taught}))
    elif was_taught:
        typer.echo("The untrained model is in use again. What was told is kept.")
    else:
        typer.echo("No taught model is in use; nothing was changed.")


@contextmanager
def _alone(path: Path, device: str) -> Iterator[Home]:
    """The home, which no server changes meanwhile.

    Raises:
        DataError: this is no home, or a server or another `dciml teach` has it.
    """
    from dciml.errors import DataError
    from dciml.homes import home_meant
    from dciml.index import CATALOGUE_FILE
    from dciml.locks import take
    from dciml.recipes.home import SERVING_LOCK, read_home

    meant = home_meant(path)
    if meant is None:
        what = (
            "this is not the home of a folder of videos (no home.json)"
            if path.exists()
            else "there is no such folder"
        )
        raise DataError(
            what, where=path, mend="make one with `dciml serve FOLDER`; it is called FOLDER.dciml"
        )
    home = read_home(meant, device)
    if not (home.index / CATALOGUE_FILE).is_file():
        raise DataError("the home has no index yet", where=meant, mend=f"call `dciml serve {meant}` once")
    mend = "end that server, or use the button Teach in its page, under Videos"
    lock = take(home.index, "teaching", name=SERVING_LOCK, mend=mend)
    try:
        yield home
    finally:
        lock.close()
