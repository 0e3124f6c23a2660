"""`dciml inspect` and `dciml doctor`: arguments and printing; the work is in `recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from dciml.recipes.inspect import Inspection, Section, Value

PathArgument = Annotated[
    Path, typer.Argument(help="A feature store, data folder, model folder, index or home.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with times in seconds.")]

MIN_WIDTH = 100


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("inspect")(inspect)
    app.command()(doctor)


def inspect(path: PathArgument, json: JsonOption = False) -> None:
    """Say what a folder holds: counts, durations, vocabulary, damage, and what is missing."""
    from dciml.recipes.inspect import inspect as run

    found = run(path)
    if json:
        from json import dumps

        typer.echo(dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    print_inspection(found)


def print_inspection(found: Inspection) -> None:
    """Print the tables side by side where they fit, and what was found below them."""
    from rich.columns import Columns
    from rich.console import Console

    console = Console()
    if not console.is_terminal and console.width < MIN_WIDTH:
        console.width = MIN_WIDTH
    console.print(f"{found.kind}: {found.path}", style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(Columns([_table(section) for section in found.sections], padding=(1, 4)))
    for sentence in found.findings:
        console.print(f"! {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)
    if not found.findings:
        console.print("Nothing wrong was found.", highlight=False)


def _table(section: Section) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    several = len(section.columns) > 1
    table = Table(box=box.SIMPLE_HEAD if several else None, show_header=several, pad_edge=False)
    table.title, table.title_justify, table.title_style = section.title.replace("_", " "), "left", "bold"
    table.add_column("", style="dim", no_wrap=True)
    for column in section.columns:
        table.add_column(escape(column), justify="right" if several else "left", overflow="fold")
    for name, values in section.rows.items():
        label = name.removesuffix("_seconds").removesuffix("_share").replace("_", " ")
        table.add_row(escape(label), *(escape(show(name, value)) for value in values))
    return table


def show(name: str, value: Value) -> str:
    """A value as a person reads it; the name says what it measures.

    >>> show("total_seconds", 5025.0), show("known_words_share", 0.9876), show("bytes", 2_500_000)
    ('1:23:45', '98.8 %', '2.5 MB')
    >>> show("rows", 1234567), show("rows_per_second", 1.5), show("still_there", True), show("name", None)
    ('1,234,567', '1.5', 'yes', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if name.endswith("_seconds"):
        return _duration(float(value))
    if name.endswith("_share"):
        return f"{100 * value:.1f} %"
    if name == "bytes":
        return _bytes(float(value))
    return f"{value:,}" if isinstance(value, int) and name != "seed" else f"{value:g}"


def _duration(seconds: float) -> str:
    """Short times with tenths of a second, long ones as hours, minutes and seconds.

    >>> _duration(9.25), _duration(83.0), _duration(36000.0)
    ('9.2 s', '01:23', '10:00:00')
    """
    from dciml.clock import clock

    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


DoctorJsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FoldersArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Stores, data, models, indexes and homes, or folders that hold some: all of them is read. Left-over "
        "half-written files are removed there, or where none is named here."
    ),
]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(folders: FoldersArgument = None, json: DoctorJsonOption = False) -> None:
    """Check this machine: what would not work, and how to mend it. Status 1 when the main job cannot work.

    What lies in FOLDERS, and in the folders in these, is read; status 1 also where some of it is damaged. Half-written
    files that killed commands left there are removed.
    """
    from dciml.recipes.doctor import all_whole, can_work, run_checks

    checks = run_checks(folders=tuple(folders or ()))
    if json:
        from dataclasses import asdict
        from json import dumps

        content = {
            "can_work": can_work(checks),
            "all_whole": all_whole(checks),
            "checks": [asdict(check) for check in checks],
        }
        typer.echo(dumps(content, indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        for check in checks:
            style = STYLES[check.state]
            console.print(f"[{style}]{check.state:<4}[/]  {check.name:<19} ", end="")
            console.print(check.found, markup=False, soft_wrap=True)
            if check.mend:
                console.print(f"{'':<26}→ {check.mend}", style=style, markup=False, soft_wrap=True)
        verdict = "The main job works here." if can_work(checks) else "The main job cannot work here."
        console.print(verdict, style="bold")
        if not all_whole(checks):
            console.print("Of the folders that were named some are damaged.", style="bold red")
    if not (can_work(checks) and all_whole(checks)):
        raise typer.Exit(1)
