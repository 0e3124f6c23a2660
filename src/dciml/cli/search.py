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
    from dciml.search import Answer, EvidencePart, Searcher, ShownHit
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
    bool,
    typer.Option(
        "--all", help="Take also what is far below the best, and the nearest moments where nothing was found."
    ),
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
        answer = searcher.answer(sentence, k, within=within, to_show=True)
    notes = [] if sentence is None else searcher.notes(sentence, answer)
    if json:
        question: dict[str, str | float] = (
            {"sentence": sentence} if sentence is not None else {"image": str(image)}
        )
        print_json(question, searcher, answer, notes)
        return
    for note in notes:
        typer.echo(note, err=True)
    print_answer(searcher, answer, show_all=show_all, sentence=sentence or "")


def similar(
    index: IndexArgument,
    video: VideoIdArgument,
    start: StartArgument,
    end: EndArgument,
    k: HitsOption = 10,
    show_all: AllOption = False,
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
        print_json({"video_id": video, "start_seconds": start, "end_seconds": end}, searcher, answer)
    else:
        print_answer(searcher, answer, show_all=show_all)


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


def print_json(
    question: dict[str, str | float], searcher: Searcher, answer: Answer, notes: Sequence[str] = ()
) -> None:
    """Print a question and its answer as one JSON object; the hits are there also where nothing was found.

    All hits are, best first; `far_below` marks those that people are shown on request only.
    """
    import json

    stated = {"found": answer.found, "confidence": answer.confidence}
    said: dict[str, object] = {"notes": list(notes)} if notes else {}
    sentence = str(question.get("sentence", ""))
    answered = searcher.shown(answer)
    apart = _evidence(searcher, sentence, [shown.hit for shown in answered.hits])
    hits = [hit_json(shown, own) for shown, own in zip(answered.hits, apart, strict=True)]
    content = {**question, **stated, "hits": hits, **said}
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def hit_json(shown: ShownHit, apart: Sequence[EvidencePart]) -> dict[str, object]:
    """A hit as JSON has it: `video_rank` groups by video; `evidence` where it is of several kinds."""
    from dataclasses import asdict

    told = {"evidence": {part.kind: part.cosine for part in apart}} if apart else {}
    return {**asdict(shown.hit), "video_rank": shown.video_rank, "far_below": shown.is_far_below, **told}


def print_answer(searcher: Searcher, answer: Answer, *, show_all: bool, sentence: str = "") -> None:
    """Print the hits as a table; where nothing was found a sentence, and the nearest hits on request."""
    sure = "" if answer.confidence is None else f" {answer.confidence:.0%} sure that there is such a video."
    answered = searcher.shown(answer)
    if answer.found:
        print_hits(searcher, answered.hits if show_all else answered.close, sentence)
        if answered.num_far_below and not show_all:
            typer.echo(left_out(answered.num_far_below))
        if sure:
            typer.echo(sure.strip())
    elif not answer.hits:
        typer.echo("Nothing found.")
    elif show_all:
        print_hits(searcher, answered.hits, sentence)
        typer.echo(f"Nothing found; these are the nearest moments.{sure}")
    else:
        typer.echo(f"Nothing found.{sure} See the nearest moments with --all.")


def left_out(number: int) -> str:
    """That some moments are not shown, and how to see them."""
    return f"{number} moment{' is' if number == 1 else 's are'} left out, far below the best; --all takes them too."


def print_hits(searcher: Searcher, shown: Sequence[ShownHit], sentence: str = "") -> None:
    """Print hits as a table, by video, the best moment first and the others of its video under it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from dciml.clock import clock_range
    from dciml.search import grouped

    hits = [one.hit for own in grouped(shown) for one in own]
    apart = _evidence(searcher, sentence, hits)
    kinds = list(dict.fromkeys(part.kind for parts in apart for part in parts))
    calibrated = any(hit.moment_confidence is not None for hit in hits)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rank", justify="right")
    table.add_column("video", overflow="fold")
    for heading in ("moment", "score", *kinds, *(["sure"] if calibrated else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for hit, parts in zip(hits, apart, strict=True):
        cosines = {part.kind: f"{part.cosine:.2f}" for part in parts}
        video = "" if hit.video_id == before else _named(searcher, hit.video_id)
        moment = clock_range(hit.start_seconds, hit.end_seconds)
        evidence = [cosines.get(kind, "") for kind in kinds]
        table.add_row(str(hit.rank), video, moment, f"{hit.score:.3f}", *evidence, *sureness(hit))
        before = hit.video_id
    Console().print(table, highlight=False)


def _evidence(searcher: Searcher, sentence: str, hits: Sequence[SearchHit]) -> list[tuple[EvidencePart, ...]]:
    """What spoke for each hit; nothing to a moment as the question."""
    return searcher.evidence_apart(sentence, hits) if sentence else [()] * len(hits)


def sureness(hit: SearchHit) -> tuple[str, ...]:
    """How sure the search is of a moment, for the column `sure`; the one place that says so."""
    return () if hit.moment_confidence is None else (f"{hit.moment_confidence:.0%}",)


def _named(searcher: Searcher, video_id: str) -> str:
    """The id of a video, which the other commands take, with its title where the id does not say it."""
    from dciml.recipes.moments import known_video

    title = known_video(searcher, video_id).title
    return _plain(video_id if title in video_id else f"{title} ({video_id})")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
