"""`dciml doctor`: arguments and printing; the work is in `recipes.doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FoldersArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Where dciml wrote; left-over half-written files are removed. Default: here."),
]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(doctor)


def doctor(folders: FoldersArgument = None, json: JsonOption = False) -> None:
    """Check this machine: what would not work, and how to mend it. Status 1 when the main job cannot work.

    Half-written files that killed commands left in FOLDERS, and in the folders in these, are removed.
    """
    from dciml.recipes.doctor import can_work, run_checks

    checks = run_checks(folders=tuple(folders or ()))
    if json:
        from dataclasses import asdict
        from json import dumps

        content = {"can_work": can_work(checks), "checks": [asdict(check) for check in checks]}
        typer.echo(dumps(content, indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        for check in checks:
            style = STYLES[check.state]
            console.print(f"[{style}]{check.state:<4}[/]  {check.name:<20}", end="")
            console.print(check.found, markup=False, soft_wrap=True)
            if check.mend:
                console.print(f"{'':<26}→ {check.mend}", style=style, markup=False, soft_wrap=True)
        verdict = "The main job works here." if can_work(checks) else "The main job cannot work here."
        console.print(verdict, style="bold")
    if not can_work(checks):
        raise typer.Exit(1)
