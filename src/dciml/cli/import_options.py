"""The options that the import commands share, and what they print at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dciml.cli.options import new_folder

if TYPE_CHECKING:
    from dciml.recipes.prepare import ImportSummary

PastEnd = Literal["clip", "refuse"]
BadMoments = Literal["drop", "refuse"]
RateMismatch = Literal["refuse", "rate", "spread"]

OutOption = Annotated[
    Path, typer.Option("--out", callback=new_folder, help="The data folder to make; must not exist yet.")
]
FeaturesOption = Annotated[
    list[Path],
    typer.Option(
        "--features",
        help="HDF5 file with one dataset [T, D] per video, folder of VIDEO.npy or .npz, BigFile folder, or feature "
        "store. May be repeated: the rows are joined.",
    ),
]
PastEndOption = Annotated[
    PastEnd,
    typer.Option("--past-end", help="A moment that ends after its video: clip and count it, or refuse it."),
]
BadMomentsOption = Annotated[
    BadMoments,
    typer.Option(
        "--bad-moments",
        help="A moment that cannot be true (ends before it starts, lies outside): drop it, or refuse.",
    ),
]
AllowMissingOption = Annotated[
    bool,
    typer.Option("--allow-missing", help="Drop queries and videos without features; else they are an error."),
]
AllowExtraOption = Annotated[
    bool,
    typer.Option("--allow-extra", help="Leave out features that no split names; else they are an error."),
]
StrictCountsOption = Annotated[
    bool,
    typer.Option(
        "--strict-counts", help="Refuse other counts than the published ones; else they are a warning."
    ),
]
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", help="What made the features; kept in the store's manifest.")
]
RateOption = Annotated[
    float | None,
    typer.Option("--rows-per-second", min=1e-6, max=10_000, help="Feature rows a second, where it is fixed."),
]


RateMismatchOption = Annotated[
    RateMismatch,
    typer.Option(
        "--rate-mismatch",
        help="Where rows, --rows-per-second and the length of a video differ by more than a row and 1 %: refuse; or "
        "keep the rate (row i is at i / rate, rows after the end are left out); or drop it (rows are spread evenly).",
    ),
]


def print_summary(summary: ImportSummary) -> None:
    """Print the counts of an import, and on standard error what differs from the published ones."""
    from dataclasses import fields

    from rich.console import Console
    from rich.table import Table

    from dciml.cautions import tell
    from dciml.recipes.prepare import SplitSummary

    table = Table(title=summary.folder.name)
    table.add_column("")
    for split in summary.splits:
        table.add_column(split, justify="right")
    for field in fields(SplitSummary):
        counts = (str(getattr(split, field.name)) for split in summary.splits.values())
        table.add_row(field.name.replace("_", " "), *counts)
    console = Console()
    console.print(table)
    tell(summary.warnings)
    if summary.features_left_out:
        console.print(
            f"{summary.features_left_out} video(s) of the features are in no split and were left out"
        )
    text = summary.folder.path / "text"
    if text.is_dir():
        console.print(f"Text features of the release: {text}", soft_wrap=True, highlight=False)
    console.print(f"Data folder: {summary.folder.path}", soft_wrap=True, highlight=False)
