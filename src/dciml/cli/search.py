"""`dciml search`: arguments and printing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dciml.index import ClipIndex, VideoFilter
    from dciml.types import SearchHit

IndexArgument = Annotated[Path, typer.Argument(help="Index folder, as written by `dciml index`.")]
SentenceArgument = Annotated[str, typer.Argument(help="What happens in the moment, in a sentence.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
MovedModelOption = Annotated[
    Path | None, typer.Option("--model", help="The index's model folder, if it has moved.")
]
MovedFeaturesOption = Annotated[
    Path | None, typer.Option("--features", help="The index's feature store, if it has moved.")
]
HitsOption = Annotated[int, typer.Option("-k", min=1, help="How many moments.")]
VideoOption = Annotated[
    list[str] | None, typer.Option("--video", help="Search in this video only; may be repeated.")
]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Only videos whose file lies in this folder, or deeper.")
]
TagOption = Annotated[str | None, typer.Option("--tag", help="Only videos with this tag.")]
DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
AfterOption = Annotated[
    datetime | None,
    typer.Option("--after", formats=DATE_FORMATS, help="Only videos of this local time or later."),
]
BeforeOption = Annotated[
    datetime | None,
    typer.Option("--before", formats=DATE_FORMATS, help="Only videos from before this local time."),
]
MinDurationOption = Annotated[
    float | None, typer.Option("--min-duration", min=0, help="Only videos of at least so many seconds.")
]
MaxDurationOption = Annotated[
    float | None, typer.Option("--max-duration", min=0, help="Only videos of at most so many seconds.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with times in seconds.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("search")(search)


def search(
    index: IndexArgument,
    sentence: SentenceArgument,
    k: HitsOption = 10,
    video: VideoOption = None,
    folder: FolderOption = None,
    tag: TagOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    json: JsonOption = False,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
) -> None:
    """Find the moments that a sentence describes."""
    from dciml.build import open_searcher
    from dciml.index import VideoFilter

    wanted = VideoFilter(
        video_ids=video,
        folder=folder,
        tag=tag,
        after_unix=None if after is None else after.timestamp(),
        before_unix=None if before is None else before.timestamp(),
        min_duration_seconds=min_duration,
        max_duration_seconds=max_duration,
    )
    searcher = open_searcher(index, device, model_folder=model, store_path=features)
    hits = searcher.search(sentence, k, within=select_within(searcher.index, wanted))
    if json:
        print_json(sentence, hits)
    else:
        print_hits(hits)


def select_within(index: ClipIndex, wanted: VideoFilter) -> tuple[str, ...] | None:
    """The ids that a filter lets through; None for a filter that asks for nothing.

    Raises:
        DataError: no video fits the filter.
    """
    from dciml.errors import DataError
    from dciml.index import VideoFilter

    if wanted == VideoFilter():
        return None
    chosen = index.select(wanted)
    if not chosen:
        raise DataError("no video of the index fits the filter", where=index.path, mend="ask for less")
    return chosen


def print_json(sentence: str, hits: Sequence[SearchHit]) -> None:
    """Print a sentence and its hits as one JSON object."""
    import json
    from dataclasses import asdict

    content = {"sentence": sentence, "hits": [asdict(hit) for hit in hits]}
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_hits(hits: Sequence[SearchHit]) -> None:
    """Print hits as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rank", justify="right")
    table.add_column("video", overflow="fold")
    table.add_column("moment", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    for hit in hits:
        moment = f"{clock(hit.start_seconds)}–{clock(hit.end_seconds)}"
        table.add_row(str(hit.rank), _plain(hit.video_id), moment, f"{hit.score:.3f}")
    Console().print(table, highlight=False)


def clock(seconds: float) -> str:
    """A time as mm:ss, or h:mm:ss from one hour on, to the nearest second.

    >>> clock(64.6), clock(3599.7)
    ('01:05', '1:00:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
