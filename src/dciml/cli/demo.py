"""`dciml demo`: arguments only; the work is in `recipes.demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dciml.cli.options import JsonOption, say
from dciml.cli.serve import check_installed

OutOption = Annotated[Path, typer.Option("--out", help="Folder for videos, features, model, index and page.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Another seed draws another corpus.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, max=512, help="Processes that draw and decode videos.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting of the training: key=value; may be repeated."),
]
ServeOption = Annotated[
    bool,
    typer.Option("--serve", help="Then search it in the browser; a finished demo in OUT is used as it is."),
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="With --serve; 0: any free port.")]
OpenOption = Annotated[bool, typer.Option("--open", help="With --serve: open the page in the browser.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(demo)


def demo(
    out: OutOption = Path("demo-out"),
    seed: SeedOption = 7,
    workers: WorkersOption = 2,
    set_: SetOption = None,
    serve: ServeOption = False,
    port: PortOption = 8765,
    open_: OpenOption = False,
    json: JsonOption = False,
) -> None:
    """The whole job on made-up videos: draw, extract, train, evaluate, index, answer; ends with an HTML page."""
    if serve:
        check_installed()  # before the minutes that the rest takes
    from rich.console import Console

    from dciml.files import read_json
    from dciml.recipes.demo import DemoOptions, is_finished, run_demo

    options = DemoOptions(seed=seed, workers=workers, overrides=tuple(set_ or ()))
    if not serve or not is_finished(out, options):
        run_demo(out, options, Console(stderr=json))
    if json:
        facts = {"page": out / "index.html", "index": out / "index", "model": out / "model"}
        say("", facts | {"report": read_json(out / "report.json")}, as_json=True)
    if serve:
        from dciml.service import ServiceSettings, run_server

        run_server(ServiceSettings(out / "index"), port, open_page=open_)
