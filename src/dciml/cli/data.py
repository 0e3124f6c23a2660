"""`dciml import …`: data sets of other forms → a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dciml.cli import import_published
from dciml.cli.import_options import (
    AllowExtraOption,
    AllowMissingOption,
    BadMomentsOption,
    EncoderOption,
    FeaturesOption,
    OutOption,
    PastEndOption,
    RateMismatchOption,
    RateOption,
    print_summary,
)

app = typer.Typer(
    help="Import annotations and features into a data folder, the form that all other commands read.",
    no_args_is_help=True,
)


@app.command()
def records(
    split: Annotated[
        list[str],
        typer.Option(
            "--split",
            help="NAME=FILE, once a split; FILE is a table (.csv, .tsv) with the columns video, sentence and, if "
            "you like, start, end, or JSON lines.",
        ),
    ],
    features: FeaturesOption,
    out: OutOption,
    name: Annotated[str | None, typer.Option("--name", help="Name of the data; else that of --out.")] = None,
    past_end: PastEndOption = "clip",
    bad_moments: BadMomentsOption = "refuse",
    allow_missing: AllowMissingOption = False,
    allow_extra: AllowExtraOption = False,
    encoder: EncoderOption = None,
    rows_per_second: RateOption = None,
    rate_mismatch: RateMismatchOption = "refuse",
) -> None:
    """Import your own data: sentences in a table or as JSON lines, and features."""
    from dciml.recipes.prepare import ImportOptions, prepare_records

    options = ImportOptions(
        past_end, bad_moments, allow_missing, allow_extra, False, encoder, rows_per_second, rate_mismatch
    )
    print_summary(prepare_records(_named_files(split), features, out, name or out.resolve().name, options))


import_published.register(app)


@app.command()
def benchmark(
    folder: Annotated[
        Path, typer.Argument(help="Holds videos.h5 and a JSON-lines file of queries per split.")
    ],
    out: OutOption,
    name: Annotated[str | None, typer.Option("--name", help="Name of the data; else the folder's.")] = None,
    past_end: PastEndOption = "clip",
    bad_moments: BadMomentsOption = "drop",
    allow_missing: AllowMissingOption = False,
    encoder: EncoderOption = None,
    rows_per_second: RateOption = None,
    rate_mismatch: RateMismatchOption = "refuse",
) -> None:
    """Import videos.h5 (attributes duration and split) with SPLIT.jsonl for each split."""
    from dciml.recipes.prepare import ImportOptions, prepare_benchmark

    options = ImportOptions(
        past_end, bad_moments, allow_missing, False, False, encoder, rows_per_second, rate_mismatch
    )
    print_summary(prepare_benchmark(folder, out, name or folder.resolve().name, options))


def _named_files(options: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for option in options:
        name, mark, path = option.partition("=")
        if not (name and mark and path):
            raise typer.BadParameter(f"{option!r} is not NAME=FILE", param_hint="--split")
        if name in files:
            raise typer.BadParameter(f"the split {name!r} is given twice", param_hint="--split")
        files[name] = Path(path)
    return files
