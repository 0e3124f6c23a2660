"""`dciml index`, `index-add`, `index-remove` and `search`: arguments and printing; the work is in `recipes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dciml.types import SearchHit

ModelArgument = Annotated[Path, typer.Argument(help="Model folder.")]
FeaturesArgument = Annotated[Path, typer.Argument(help="Feature store, or data folder.")]
IndexArgument = Annotated[Path, typer.Argument(help="Index folder, as written by `dciml index`.")]
SentenceArgument = Annotated[str, typer.Argument(help="What happens in the moment, in a sentence.")]
VideoIdsArgument = Annotated[list[str], typer.Argument(help="Ids of the videos to take out.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write; must not exist yet.")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Of a data folder: only this split's videos.")
]
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
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with times in seconds.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("index")(index)
    app.command("index-add")(index_add)
    app.command("index-remove")(index_remove)
    app.command("search")(search)


def index(
    model: ModelArgument,
    features: FeaturesArgument,
    out: OutOption,
    split: SplitOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Make a corpus searchable: encode its videos with a model and write an index."""
    from dciml.build import load_model
    from dciml.recipes.index import build_index

    loaded = load_model(model, device)
    with _progress() as report:
        built = build_index(loaded, features, out, split=split, on_progress=report)
    typer.echo(f"{out}: {_videos(len(built))} indexed.")


def index_add(
    index: IndexArgument,
    features: FeaturesArgument,
    split: SplitOption = None,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
) -> None:
    """Add the videos that an index does not hold yet."""
    from dciml.build import load_model
    from dciml.index import ClipIndex
    from dciml.recipes.index import add_videos

    opened = ClipIndex.open(index)
    loaded = load_model(model or opened.model_folder(), device)
    with _progress() as report:
        added = add_videos(opened, loaded, features, split=split, on_progress=report)
    typer.echo(f"{index}: {_videos(added)} added, {_videos(len(opened))} in all.")


def index_remove(index: IndexArgument, video_ids: VideoIdsArgument) -> None:
    """Take videos out of an index."""
    from dciml.index import ClipIndex
    from dciml.recipes.index import remove_videos

    opened = ClipIndex.open(index)
    removed = remove_videos(opened, video_ids)
    typer.echo(f"{index}: {_videos(removed)} removed, {_videos(len(opened))} left.")


def search(
    index: IndexArgument,
    sentence: SentenceArgument,
    k: HitsOption = 10,
    video: VideoOption = None,
    json: JsonOption = False,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
) -> None:
    """Find the moments that a sentence describes."""
    from dciml.build import open_searcher

    searcher = open_searcher(index, device, model_folder=model, store_path=features)
    hits = searcher.search(sentence, k, within=video)
    if json:
        print_json(sentence, hits)
    else:
        print_hits(hits)


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


def _videos(count: int) -> str:
    return "1 video" if count == 1 else f"{count} videos"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("videos", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield report
