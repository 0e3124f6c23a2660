"""`dciml search` and `dciml similar`: arguments and printing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dciml.cli.options import (
    DeviceOption,
    IndexArgument,
    MovedFeaturesOption,
    MovedModelOption,
    MovedStoreOption,
)

if TYPE_CHECKING:
    from dciml.index import VideoFilter
    from dciml.search import Answer, Searcher
    from dciml.types import SearchHit

AskedArgument = Annotated[
    str | None, typer.Argument(help="What happens in the moment, in a sentence; or --image.")
]
ImageOption = Annotated[
    Path | None,
    typer.Option(
        "--image",
        help="Ask by a picture instead; of an index whose features are of an image–text model.",
    ),
]
SentenceArgument = Annotated[str, typer.Argument(help="What happens in the moment, in a sentence.")]
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
    float | None, typer.Option("--min-duration", min=0, help="Only videos of at least this many seconds.")
]
MaxDurationOption = Annotated[
    float | None, typer.Option("--max-duration", min=0, help="Only videos of at most this many seconds.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with times in seconds.")]
AllOption = Annotated[
    bool, typer.Option("--all", help="Show the nearest moments also where nothing was found.")
]
VideoIdArgument = Annotated[str, typer.Argument(help="Id of the video that the moment is in.")]
StartArgument = Annotated[float, typer.Argument(min=0, help="Start of the moment, in seconds.")]
EndArgument = Annotated[float, typer.Argument(min=0, help="End of the moment, in seconds.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("search")(search)
    app.command("similar")(similar)


def search(
    index: IndexArgument,
    sentence: AskedArgument = None,
    image: ImageOption = None,
    k: HitsOption = 10,
    video: VideoOption = None,
    folder: FolderOption = None,
    tag: TagOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    show_all: AllOption = False,
    json: JsonOption = False,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Find the moments that a sentence describes, or that look like a picture."""
    if (sentence is None) == (image is None):
        raise typer.BadParameter("give either a sentence or --image", param_hint="SENTENCE")
    from dciml.index import VideoFilter
    from dciml.model_folder import open_searcher

    wanted = VideoFilter(
        video_ids=video,
        folder=folder,
        tag=tag,
        after_unix=None if after is None else after.timestamp(),
        before_unix=None if before is None else before.timestamp(),
        min_duration_seconds=min_duration,
        max_duration_seconds=max_duration,
    )
    searcher = open_searcher(index, device, model_folder=model, store_path=features, vector_store=store)
    within = select_within(searcher, wanted)
    if image is not None:
        from dciml.recipes.pictures import answer_picture

        answer = answer_picture(searcher, image, k, within, device)
    else:
        assert sentence is not None
        answer = searcher.answer(sentence, k, within=within)
    notes = [] if sentence is None else searcher.notes(sentence)
    if json:
        print_json({"sentence": sentence} if sentence is not None else {"image": str(image)}, answer, notes)
        return
    for note in notes:
        typer.echo(note, err=True)
    print_answer(answer, show_all=show_all)


def similar(
    index: IndexArgument,
    video: VideoIdArgument,
    start: StartArgument,
    end: EndArgument,
    k: HitsOption = 10,
    json: JsonOption = False,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Find moments like a given one, in all videos; what overlaps it is left out."""
    from dciml.model_folder import open_searcher

    searcher = open_searcher(index, device, model_folder=model, store_path=features, vector_store=store)
    answer = searcher.similar(video, start, end, k)
    if json:
        print_json({"video_id": video, "start_seconds": start, "end_seconds": end}, answer)
    else:
        print_answer(answer, show_all=False)


def select_within(searcher: Searcher, wanted: VideoFilter) -> tuple[str, ...] | None:
    """The ids that a filter lets through; None for a filter that asks for nothing.

    Raises:
        DataError: no video fits the filter.
    """
    from dciml.errors import DataError
    from dciml.index import VideoFilter
    from dciml.search import select_whole

    if wanted == VideoFilter():
        return None
    chosen = select_whole(searcher.index, wanted, searcher.windowed)
    if not chosen:
        raise DataError(
            "no video of the index fits the filter", where=searcher.index.path, mend="ask for less"
        )
    return chosen


def print_json(question: dict[str, str | float], answer: Answer, notes: Sequence[str] = ()) -> None:
    """Print a question and its answer as one JSON object; the hits are there also where nothing was found."""
    import json
    from dataclasses import asdict

    stated = {"found": answer.found, "confidence": answer.confidence}
    said: dict[str, object] = {"notes": list(notes)} if notes else {}
    content = {**question, **stated, "hits": [asdict(hit) for hit in answer.hits], **said}
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_answer(answer: Answer, *, show_all: bool) -> None:
    """Print the hits as a table; where nothing was found a sentence, and the nearest hits on request."""
    sure = "" if answer.confidence is None else f" {answer.confidence:.0%} sure that there is such a video."
    if answer.found:
        print_hits(answer.hits)
        if sure:
            typer.echo(sure.strip())
    elif not answer.hits:
        typer.echo("Nothing found.")
    elif show_all:
        print_hits(answer.hits)
        typer.echo(f"Nothing found; these are the nearest moments.{sure}")
    else:
        typer.echo(f"Nothing found.{sure} See the nearest moments with --all.")


def print_hits(hits: Sequence[SearchHit]) -> None:
    """Print hits as a table; `sure` is how likely the video is the right one, where the model is calibrated."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    calibrated = any(hit.confidence is not None for hit in hits)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rank", justify="right")
    table.add_column("video", overflow="fold")
    for heading in ("moment", "score", "sure") if calibrated else ("moment", "score"):
        table.add_column(heading, justify="right", no_wrap=True)
    for hit in hits:
        moment = f"{clock(hit.start_seconds)}–{clock(hit.end_seconds)}"
        sure = () if hit.confidence is None else (f"{hit.confidence:.0%}",)
        table.add_row(str(hit.rank), _plain(hit.video_id), moment, f"{hit.score:.3f}", *sure)
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
