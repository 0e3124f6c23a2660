"""`dciml cut` and `dciml export`: arguments and printing."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dciml.cli.options import (
    DeviceOption,
    IndexArgument,
    JsonOption,
    MovedFeaturesOption,
    MovedModelOption,
    MovedStoreOption,
    say,
)
from dciml.cli.search import (
    AllOption,
    FolderOption,
    HitsOption,
    SentenceArgument,
    TagOption,
    VideoOption,
    select_within,
)
from dciml.clock import clock_range, to_millisecond

if TYPE_CHECKING:
    from dciml.recipes.cut import Clip, CutReport
    from dciml.search import Answer, Searcher


class ExportFormat(StrEnum):
    """The words of --format."""

    csv = "csv"
    json = "json"
    vtt = "vtt"
    edl = "edl"
    fcpxml = "fcpxml"
    otio = "otio"
    labelstudio = "labelstudio"
    fiftyone = "fiftyone"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("cut")(cut)
    app.command("export")(export)


def cut(
    index: IndexArgument,
    sentence: SentenceArgument,
    out: Annotated[
        Path, typer.Option("--out", help="The folder for the clips; files there are never written over.")
    ],
    k: HitsOption = 3,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Begin with the very picture, which means encoding anew. Default: packets are copied, from the last "
            "picture that can be decoded alone, where the file allows it.",
        ),
    ] = False,
    padding: Annotated[
        float, typer.Option("--padding", min=0, help="Seconds to add before and after each moment.")
    ] = 0.0,
    video: VideoOption = None,
    folder: FolderOption = None,
    tag: TagOption = None,
    take_all: AllOption = False,
    json: JsonOption = False,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Cut the moments that a sentence describes out of their videos."""
    from dciml.model_folder import open_searcher
    from dciml.recipes.cut import cut_moments, refuse_file

    refuse_file(out)
    searcher = open_searcher(index, device, model_folder=model, store_path=features, vector_store=store)
    answer = _answer(searcher, sentence, k, video, folder, tag, take_all=take_all)
    report = cut_moments(
        searcher,
        answer.hits,
        out,
        exact=exact,
        padding_seconds=padding,
        on_clip=None if json else print_clip,
    )
    if json:
        print_report(sentence, answer, report)
    for lost in report.failed:
        typer.echo(f"dciml: moment {lost.hit.rank}: {lost.why}", err=True)
    if report.failed:
        raise typer.Exit(1)


def export(
    index: IndexArgument,
    sentence: SentenceArgument,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="csv, json; vtt: chapters for players; edl (CMX3600), fcpxml, otio: for editing programs; "
            "labelstudio, fiftyone: for annotation tools.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            help="The file to write, never over another; - prints it. For vtt a name without .vtt is a new folder, "
            "which gets a file a video.",
        ),
    ],
    k: HitsOption = 10,
    media_url: Annotated[
        str | None,
        typer.Option(
            "--media-url",
            help="For labelstudio: what the address of a video begins with, before the name of its file. Default: "
            "a local file.",
        ),
    ] = None,
    video: VideoOption = None,
    folder: FolderOption = None,
    tag: TagOption = None,
    take_all: AllOption = False,
    json: JsonOption = False,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Write the moments that a sentence describes in a form of another program."""
    from dciml.model_folder import open_searcher
    from dciml.recipes.export import export_moments, label_studio_setup, refuse_taken_out

    path = None if out == "-" else Path(out)
    if path is None and json:
        raise typer.BadParameter("with --out - what is printed is the export itself", param_hint="--json")
    refuse_taken_out(form.value, path)
    searcher = open_searcher(index, device, model_folder=model, store_path=features, vector_store=store)
    answer = _answer(searcher, sentence, k, video, folder, tag, take_all=take_all)
    done = export_moments(searcher, sentence, answer, form.value, path, media_url)
    if done.text is not None:
        typer.echo(done.text, nl=False)
    else:
        plural = "" if done.num_moments == 1 else "s"
        left_out = [{"rank": hit.rank, "video_id": hit.video_id, "why": why} for hit, why in done.left_out]
        facts = {"file": done.path, "moments": done.num_moments, "left_out": left_out}
        say(f"{done.path}: {done.num_moments} moment{plural}", facts, as_json=json)
    if form is ExportFormat.labelstudio:
        typer.echo(f"Label Studio's labelling interface for this: {label_studio_setup(sentence)}", err=True)
    for hit, why in done.left_out:
        typer.echo(f"dciml: moment {hit.rank}: {why}", err=True)
    if done.left_out:
        raise typer.Exit(1)


def _answer(
    searcher: Searcher,
    sentence: str,
    k: int,
    video: list[str] | None,
    folder: Path | None,
    tag: str | None,
    *,
    take_all: bool,
) -> Answer:
    from dciml.index import VideoFilter
    from dciml.recipes.moments import refuse_nothing

    wanted = VideoFilter(video_ids=video, folder=folder, tag=tag)
    answer = searcher.answer(sentence, k, within=select_within(searcher, wanted), to_show=True)
    refuse_nothing(answer, take_all=take_all)
    # As many as were asked for, also those far below the best, but none too short to be seen.
    return replace(answer, hits=tuple(shown.hit for shown in searcher.shown(answer).hits))


def print_clip(clip: Clip) -> None:
    """Print a file that was written, what it holds, and how much before the moment it begins."""
    moment = f"{clock_range(clip.hit.start_seconds, clip.hit.end_seconds)} of {clip.hit.video_id}"
    early = f", begins {clip.early_seconds:.1f} s earlier" if clip.early_seconds >= 0.05 else ""
    silent = ", no sound" if clip.piece.sound is None else ""
    typer.echo(f"{clip.file}: {moment}, {clip.piece.pictures}{early}{silent}")


def print_report(sentence: str, answer: Answer, report: CutReport) -> None:
    """Print what was written and what could not be, as one JSON object."""
    import json
    from dataclasses import asdict

    clips = [
        {
            **asdict(clip.hit),
            "file": str(clip.file),
            "clip_start_seconds": to_millisecond(clip.piece.start_seconds),
            "clip_end_seconds": to_millisecond(clip.piece.end_seconds),
            "early_seconds": to_millisecond(clip.early_seconds),
            "pictures": clip.piece.pictures,
            "sound": clip.piece.sound,
        }
        for clip in report.clips
    ]
    failed = [{**asdict(lost.hit), "why": lost.why} for lost in report.failed]
    stated = {"sentence": sentence, "found": answer.found, "confidence": answer.confidence}
    content = {**stated, "clips": clips, "failed": failed}
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
