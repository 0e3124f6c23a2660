"""`dciml import …`: data sets of other forms, published and one's own → a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dciml.cli.options import JsonOption, new_folder, say

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


def print_summary(summary: ImportSummary, *, as_json: bool) -> None:
    """Print the counts of an import, and on standard error what differs from the published ones."""
    from dataclasses import fields

    from rich.console import Console
    from rich.table import Table

    from dciml.cautions import tell
    from dciml.recipes.prepare import SplitSummary

    if as_json:
        tell(summary.warnings)
        say("", _facts(summary), as_json=True)
        return
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


def _facts(summary: ImportSummary) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "data": summary.folder.path,
        "name": summary.folder.name,
        "splits": {name: asdict(split) for name, split in summary.splits.items()},
        "features_left_out": summary.features_left_out,
        "warnings": summary.warnings,
    }


# Command, name of the data set in `datasets.published`, help.
_COMMANDS = (
    ("activitynet", "ACTIVITYNET", "Import ActivityNet Captions: train.json, val_1.json, val_2.json."),
    (
        "charades-sta",
        "CHARADES_STA",
        "Import Charades-STA: charades_sta_train.txt, …_test.txt, and Charades_v1_train.csv, …_test.csv.",
    ),
    ("tacos", "TACOS", "Import TACoS: train.json, val.json, test.json of 2D-TAN, with frame numbers."),
    (
        "tvr",
        "TVR",
        "Import TVR: tvr_train_release.jsonl, tvr_val_release.jsonl, tvr_test_public_release.jsonl.",
    ),
    (
        "qvhighlights",
        "QVHIGHLIGHTS",
        "Import QVHighlights: highlight_train_release.jsonl, …_val_release.jsonl, highlight_test_with_gt.jsonl.",
    ),
    ("didemo", "DIDEMO", "Import DiDeMo: train_data.json, val_data.json, test_data.json."),
    ("cpl", "CPL", "Import the CPL release: train.json, test.json, and glove.pkl, which is not unpickled."),
)


def _register_published(app: typer.Typer) -> None:
    """Add the commands to `dciml import`."""
    for command, constant, text in _COMMANDS:
        _add(app, command, constant, text)
    app.command()(prvr)


def _add(app: typer.Typer, command: str, constant: str, text: str) -> None:
    @app.command(command, help=text + "\n\nSplits whose files are not there are left out.", short_help=text)
    def run(
        folder: Annotated[Path, typer.Argument(help="The annotations, under their released names.")],
        features: FeaturesOption,
        out: OutOption,
        split: Annotated[
            list[str] | None, typer.Option("--split", help="Only this split. May be repeated. Default: all.")
        ] = None,
        past_end: PastEndOption = "clip",
        bad_moments: BadMomentsOption = "drop",
        allow_missing: AllowMissingOption = False,
        strict_counts: StrictCountsOption = False,
        encoder: EncoderOption = None,
        rows_per_second: RateOption = None,
        rate_mismatch: RateMismatchOption = "refuse",
        json: JsonOption = False,
    ) -> None:
        from dciml.datasets import published
        from dciml.recipes.prepare import ImportOptions, prepare_published

        options = ImportOptions(
            past_end, bad_moments, allow_missing, True, strict_counts, encoder, rows_per_second, rate_mismatch
        )
        data = getattr(published, constant)
        print_summary(prepare_published(data, folder, features, out, options, split or ()), as_json=json)


def prvr(
    folder: Annotated[Path, typer.Argument(help="One collection, with TextData and FeatureData in it.")],
    out: OutOption,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(
            "--annotations",
            help="The data set's own annotations, for moments and lengths of videos. May be repeated; for Charades "
            "name the text and the CSV files.",
        ),
    ] = None,
    feature: Annotated[
        str | None, typer.Option("--feature", help="Folder in FeatureData, where there are several.")
    ] = None,
    past_end: PastEndOption = "clip",
    bad_moments: BadMomentsOption = "drop",
    allow_missing: AllowMissingOption = False,
    strict_counts: StrictCountsOption = False,
    encoder: EncoderOption = None,
    rows_per_second: RateOption = None,
    rate_mismatch: RateMismatchOption = "refuse",
    json: JsonOption = False,
) -> None:
    """Import a PRVR release (MS-SL, GMMFormer): BigFile features, captions and RoBERTa's query features."""
    from dciml.recipes.prepare import ImportOptions
    from dciml.recipes.prepare_prvr import prepare_prvr

    options = ImportOptions(
        past_end, bad_moments, allow_missing, True, strict_counts, encoder, rows_per_second, rate_mismatch
    )
    print_summary(prepare_prvr(folder, out, options, annotations or (), feature), as_json=json)


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
            "you like, start, end, or JSON lines, or what Label Studio or FiftyOne exported (.json).",
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
    json: JsonOption = False,
) -> None:
    """Import your own data: sentences in a table, as JSON lines or from an annotation tool, and features."""
    from dciml.recipes.prepare import ImportOptions, prepare_records

    options = ImportOptions(
        past_end, bad_moments, allow_missing, allow_extra, False, encoder, rows_per_second, rate_mismatch
    )
    print_summary(
        prepare_records(_named_files(split), features, out, name or out.resolve().name, options), as_json=json
    )


_register_published(app)


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
    json: JsonOption = False,
) -> None:
    """Import videos.h5 (attributes duration and split) with SPLIT.jsonl for each split."""
    from dciml.recipes.prepare import ImportOptions, prepare_benchmark

    options = ImportOptions(
        past_end, bad_moments, allow_missing, False, False, encoder, rows_per_second, rate_mismatch
    )
    print_summary(prepare_benchmark(folder, out, name or folder.resolve().name, options), as_json=json)


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
