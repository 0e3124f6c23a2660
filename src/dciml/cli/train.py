"""`dciml train` and `dciml baseline …`: arguments only; the work is in `recipes`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dciml.cli.options import JsonOption, new_folder, say

SHIPPED = "configs"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(train)
    app.add_typer(baseline, name="baseline")


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
    json: JsonOption = False,
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
        say(f"model: {folder}", {"model": folder, "settings": resolved.name}, as_json=json)


def _settings_file(path: Path) -> Path:
    """The file; where there is none, the one of configs/ that came with dciml, so that any folder will do."""
    if path.exists() or path.parts[:1] != (SHIPPED,):
        return path
    package = Path(__file__).parents[1]  # an installed one holds them, a checkout has them beside src/
    shipped = [root / path for root in (package, package.parents[1])]
    return next((file for file in shipped if file.is_file()), path)


baseline = typer.Typer(
    help="Build the plain models that a trained one must beat; all other commands take their folders.",
    no_args_is_help=True,
)

DataArgument = Annotated[Path, typer.Argument(help="Data folder, as written by `dciml import`.")]
OutOption = Annotated[Path, typer.Option("--out", callback=new_folder, help="The model folder to make.")]
TextOption = Annotated[
    str, typer.Option("--text", help="words, words:WIDTH, minilm, transformers:FOLDER, …, as text.encoder.")
]


@baseline.command()
def cosine(
    data: Annotated[Path, typer.Argument(help="Data folder, or a feature store of an image–text model.")],
    out: OutOption,
    text: Annotated[
        str | None,
        typer.Option(
            "--text", help="Text encoder; left out: minilm, or of a store the one of its own model."
        ),
    ] = None,
    propagation: Annotated[
        float,
        typer.Option(
            "--propagation", min=0, max=0.99, help="Share of a clip from clips of its video that look alike."
        ),
    ] = 0.0,
    json: JsonOption = False,
) -> None:
    """Nothing trained: the sentence's vector against the video rows, where both share a space."""
    from dciml.datasets import DataFolder
    from dciml.features import MANIFEST_FILE, FeatureStore
    from dciml.recipes.baseline import CosineConfig, build_cosine, text_of

    if (data / MANIFEST_FILE).is_file():
        store = FeatureStore.open(data)
        build_cosine(store, out, CosineConfig(text=text or text_of(store), propagation=propagation))
    else:
        build_cosine(DataFolder.open(data), out, CosineConfig(text=text or "minilm", propagation=propagation))
    say(f"The untrained cosine is in {out}.", {"model": out}, as_json=json)


@baseline.command("shared-space")
def shared_space(
    data: DataArgument,
    out: OutOption,
    text: TextOption = "words",
    epochs: Annotated[int, typer.Option("--epochs", min=1, max=1_000_000)] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1)] = 9527,
    json: JsonOption = False,
) -> None:
    """A linear layer a side into a shared space, trained on (video, sentence) pairs."""
    from dciml.datasets import DataFolder
    from dciml.progress_line import ProgressLine
    from dciml.recipes.baseline import SharedSpaceConfig, train_shared_space

    losses: list[float] = []
    config = SharedSpaceConfig(text=text, epochs=epochs, seed=seed)
    with ProgressLine() as line:
        line.begin("set-up", epochs)

        def report(epoch: int, loss: float) -> None:
            losses.append(loss)
            line.tell(epoch, what=f"epoch {epoch}/{epochs}", details=f"info_nce {loss:.4f}")
            if not json:
                typer.echo(f"epoch {epoch}/{epochs}: info_nce {loss:.4f}")

        train_shared_space(DataFolder.open(data), out, config, report=report)
    say(f"The shared space is in {out}.", {"model": out, "info_nce": losses}, as_json=json)
