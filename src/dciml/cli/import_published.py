"""`dciml import activitynet`, `charades-sta`, … : published data sets, a command each, all with the same options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dciml.cli.import_options import (
    AllowMissingOption,
    BadMomentsOption,
    EncoderOption,
    FeaturesOption,
    OutOption,
    PastEndOption,
    RateMismatchOption,
    RateOption,
    StrictCountsOption,
    print_summary,
)

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


def register(app: typer.Typer) -> None:
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
    ) -> None:
        from dciml.datasets import published
        from dciml.recipes.prepare import ImportOptions
        from dciml.recipes.prepare_published import prepare_published

        options = ImportOptions(
            past_end, bad_moments, allow_missing, True, strict_counts, encoder, rows_per_second, rate_mismatch
        )
        data = getattr(published, constant)
        print_summary(prepare_published(data, folder, features, out, options, split or ()))


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
) -> None:
    """Import a PRVR release (MS-SL, GMMFormer): BigFile features, captions and RoBERTa's query features."""
    from dciml.recipes.prepare import ImportOptions
    from dciml.recipes.prepare_prvr import prepare_prvr

    options = ImportOptions(
        past_end, bad_moments, allow_missing, True, strict_counts, encoder, rows_per_second, rate_mismatch
    )
    print_summary(prepare_prvr(folder, out, options, annotations or (), feature))
