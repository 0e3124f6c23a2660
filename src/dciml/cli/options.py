"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dciml.model_folder import Model

IndexArgument = Annotated[
    Path,
    typer.Argument(
        help="Index folder, as written by `dciml index`; or a home (FOLDER.dciml), as `dciml serve FOLDER` makes it, "
        "or that FOLDER."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
MovedModelOption = Annotated[
    Path | None, typer.Option("--model", help="The index's model folder, if it has moved.")
]
MovedFeaturesOption = Annotated[
    Path | None, typer.Option("--features", help="The index's feature store, if it has moved.")
]
MovedStoreOption = Annotated[
    str | None,
    typer.Option("--store", help="The database of the index's vectors, milvus:URI, if it has moved."),
]
WindowOption = Annotated[
    float | None,
    typer.Option(
        "--window-seconds",
        min=0,
        help="Videos longer than 1.5 times this are seen as overlapping windows of this length; 0: never. "
        "Default: the length of the longest video that the model was trained on.",
    ),
]


def new_folder(path: Path) -> Path:
    """For an option that names a folder to be made: what lies there already is refused before anything is done.

    Raises:
        DataError: something lies there.
    """
    from dciml.files import refuse_taken

    refuse_taken(path)
    return path


def with_windows(model: Model, window_seconds: float | None) -> Model:
    """The model with windows of the length that was asked for; None: with its own."""
    from dataclasses import replace

    from dciml.features import WindowRule

    return model if window_seconds is None else replace(model, windows=WindowRule.of(window_seconds))


def wait_asleep() -> None:
    """Let threads that share an operation sleep while they wait for each other, here and in processes to come.

    By default they wait at work, and where other programs need the processors too, each waits for one that does not
    run: extraction was then found to take more than ten times as long. To be called before torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def say(sentence: str, facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print what was done: as a sentence for people, or as JSON for programs. Paths become text."""
    import json

    typer.echo(
        json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False, default=str) if as_json else sentence
    )
