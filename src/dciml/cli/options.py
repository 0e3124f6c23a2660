"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

IndexArgument = Annotated[Path, typer.Argument(help="Index folder, as written by `dciml index`.")]
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
