"""`dciml baseline …`: the plain models that a trained one must beat, as model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dciml.cli.options import new_folder

baseline = typer.Typer(
    help="Build the plain models that a trained one must beat; all other commands take their folders.",
    no_args_is_help=True,
)

DataArgument = Annotated[Path, typer.Argument(help="Data folder, as written by `dciml import`.")]
OutOption = Annotated[Path, typer.Option("--out", callback=new_folder, help="The model folder to make.")]
TextOption = Annotated[
    str, typer.Option("--text", help="words, words:WIDTH, minilm, transformers:FOLDER, …, as text.encoder.")
]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the program."""
    app.add_typer(baseline, name="baseline")


@baseline.command()
def cosine(data: DataArgument, out: OutOption, text: TextOption = "minilm") -> None:
    """Nothing trained: the sentence's vector against the video rows, where both share a space."""
    from dciml.datasets.folder import DataFolder
    from dciml.recipes.baseline import CosineConfig, build_cosine

    build_cosine(DataFolder.open(data), out, CosineConfig(text=text))
    typer.echo(f"The untrained cosine is in {out}.")


@baseline.command("shared-space")
def shared_space(
    data: DataArgument,
    out: OutOption,
    text: TextOption = "words",
    epochs: Annotated[int, typer.Option("--epochs", min=1, max=1_000_000)] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1)] = 9527,
) -> None:
    """A linear layer a side into a shared space, trained on (video, sentence) pairs."""
    from dciml.datasets.folder import DataFolder
    from dciml.recipes.baseline import SharedSpaceConfig, train_shared_space

    config = SharedSpaceConfig(text=text, epochs=epochs, seed=seed)
    train_shared_space(
        DataFolder.open(data),
        out,
        config,
        report=lambda epoch, loss: typer.echo(f"epoch {epoch}/{epochs}: info_nce {loss:.4f}"),
    )
    typer.echo(f"The shared space is in {out}.")
