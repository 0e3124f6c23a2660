"""`dciml import …`: data sets of other forms → a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from dciml.recipes.prepare import ImportSummary

app = typer.Typer(
    help="Import annotations and features into a data folder, the form that all other commands read.",
    no_args_is_help=True,
)

PastEnd = Literal["clip", "refuse"]
BadMoments = Literal["drop", "refuse"]

OutOption = Annotated[Path, typer.Option("--out", help="The data folder to make; must not exist yet.")]
FeaturesOption = Annotated[
    Path, typer.Option("--features", help="HDF5 file with one dataset [T, D] per video, or a feature store.")
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
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", help="What made the features; kept in the store's manifest.")
]
RateOption = Annotated[
    float | None,
    typer.Option("--rows-per-second", min=1e-6, help="Feature rows a second, where it is fixed."),
]


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
) -> None:
    """Import videos.h5 (attributes duration and split) with SPLIT.jsonl for each split."""
    from dciml.recipes.prepare import ImportOptions, prepare_benchmark

    options = ImportOptions(past_end, bad_moments, allow_missing, False, encoder, rows_per_second)
    _print(prepare_benchmark(folder, out, name or folder.resolve().name, options))


@app.command("charades-sta")
def charades_sta(
    train: Annotated[Path, typer.Option(help="charades_sta_train.txt")],
    test: Annotated[Path, typer.Option(help="charades_sta_test.txt")],
    train_csv: Annotated[Path, typer.Option("--train-csv", help="Charades_v1_train.csv")],
    test_csv: Annotated[Path, typer.Option("--test-csv", help="Charades_v1_test.csv")],
    features: FeaturesOption,
    out: OutOption,
    past_end: PastEndOption = "clip",
    bad_moments: BadMomentsOption = "drop",
    allow_missing: AllowMissingOption = False,
    allow_extra: AllowExtraOption = False,
    encoder: EncoderOption = None,
    rows_per_second: RateOption = None,
) -> None:
    """Import Charades-STA; the durations come from the Charades CSV files."""
    from dciml.recipes.prepare import ImportOptions, prepare_charades_sta

    options = ImportOptions(past_end, bad_moments, allow_missing, allow_extra, encoder, rows_per_second)
    files = {"train": (train, train_csv), "test": (test, test_csv)}
    _print(prepare_charades_sta(files, features, out, "charades_sta", options))


@app.command()
def activitynet(
    train: Annotated[Path, typer.Option(help="train.json")],
    test: Annotated[Path, typer.Option(help="The file to test on, val_1.json or val_2.json")],
    features: FeaturesOption,
    out: OutOption,
    past_end: PastEndOption = "clip",
    bad_moments: BadMomentsOption = "drop",
    allow_missing: AllowMissingOption = False,
    allow_extra: AllowExtraOption = False,
    encoder: EncoderOption = None,
    rows_per_second: RateOption = None,
) -> None:
    """Import ActivityNet Captions."""
    from dciml.recipes.prepare import ImportOptions, prepare_activitynet

    options = ImportOptions(past_end, bad_moments, allow_missing, allow_extra, encoder, rows_per_second)
    files = {"train": train, "test": test}
    _print(prepare_activitynet(files, features, out, "activitynet_captions", options))


@app.command()
def records(
    split: Annotated[
        list[str], typer.Option("--split", help="NAME=FILE, once a split; FILE holds JSON lines.")
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
) -> None:
    """Import your own data: queries as JSON lines, and features."""
    from dciml.recipes.prepare import ImportOptions, prepare_records

    options = ImportOptions(past_end, bad_moments, allow_missing, allow_extra, encoder, rows_per_second)
    _print(prepare_records(_named_files(split), features, out, name or out.resolve().name, options))


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


def _print(summary: ImportSummary) -> None:
    from dataclasses import fields

    from rich.console import Console
    from rich.table import Table

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
    if summary.features_left_out:
        console.print(
            f"{summary.features_left_out} video(s) of the features are in no split and were left out"
        )
    console.print(f"Data folder: {summary.folder.path}", soft_wrap=True, highlight=False)
