"""All commands in one place."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dciml.cautions import show_warnings
from dciml.cli import (
    data,
    demo,
    evaluate,
    extract,
    index,
    inspect,
    mcp,
    moments,
    search,
    serve,
    teach,
    train,
)
from dciml.version import __version__

ORDER = (
    *("doctor", "demo", "serve"),
    *("extract", "merge-stores", "import", "inspect"),
    *("baseline", "train", "calibrate", "evaluate", "compare"),
    *("index", "index-add", "index-remove", "index-compact", "index-verify", "index-backup"),
    *("search", "similar", "teach", "cut", "export", "mcp", "mcp-config"),
)
"""In which one works with the commands; those that are not named come last."""


class InOrder(TyperGroup):
    """Lists the commands in the order in which one works with them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        place = {name: number for number, name in enumerate(ORDER)}
        return sorted(self.commands, key=lambda name: place.get(name, len(ORDER)))


app = typer.Typer(
    name="dciml",
    cls=InOrder,
    help="Find the video and the moment that a sentence describes, learned from (video, sentence) pairs alone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    show_warnings()


demo.register(app)
extract.register(app)
app.add_typer(data.app, name="import")
train.register(app)
evaluate.register(app)
index.register(app)
search.register(app)
moments.register(app)
serve.register(app)
teach.register(app)
mcp.register(app)
inspect.register(app)
