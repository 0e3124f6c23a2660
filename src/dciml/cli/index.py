"""`dciml index`, `index-add` and `index-remove`: arguments and printing; the work is in `recipes.index`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dciml.build import Model
    from dciml.index import ClipIndex

ModelArgument = Annotated[Path, typer.Argument(help="Model folder.")]
FeaturesArgument = Annotated[Path, typer.Argument(help="Feature store, or data folder.")]
IndexArgument = Annotated[Path, typer.Argument(help="Index folder, as written by `dciml index`.")]
VideoIdsArgument = Annotated[list[str], typer.Argument(help="Ids of the videos to take out.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write; must not exist yet.")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Of a data folder: only this split's videos.")
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", help="Tag for these videos, to filter by; may be repeated.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
MovedModelOption = Annotated[
    Path | None, typer.Option("--model", help="The index's model folder, if it has moved.")
]
WindowOption = Annotated[
    float | None,
    typer.Option(
        "--window-seconds",
        min=0,
        help="Videos longer than 1.5 times this are indexed as overlapping windows of this length; 0: never. "
        "Default: the length of the longest video that the model was trained on.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("index")(index)
    app.command("index-add")(index_add)
    app.command("index-remove")(index_remove)


def index(
    model: ModelArgument,
    features: FeaturesArgument,
    out: OutOption,
    split: SplitOption = None,
    tag: TagOption = None,
    window_seconds: WindowOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Make a corpus searchable: encode its videos with a model and write an index."""
    from dciml.build import load_model
    from dciml.recipes.index import build_index

    loaded = _with_windows(load_model(model, device), window_seconds)
    with _progress() as report:
        built = build_index(loaded, features, out, split=split, tags=tag or (), on_progress=report)
    typer.echo(f"{out}: {_videos_of(built)} indexed.")


def index_add(
    index: IndexArgument,
    features: FeaturesArgument,
    split: SplitOption = None,
    tag: TagOption = None,
    window_seconds: WindowOption = None,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
) -> None:
    """Add the videos that an index does not hold yet."""
    from dciml.build import load_model
    from dciml.index import ClipIndex
    from dciml.recipes.index import add_videos

    opened = ClipIndex.open(index)
    loaded = _with_windows(load_model(model or opened.model_folder(), device), window_seconds)
    with _progress() as report:
        added = add_videos(opened, loaded, features, split=split, tags=tag or (), on_progress=report)
    typer.echo(f"{index}: {_videos(added)} added, {_videos_of(opened)} in all.")


def index_remove(index: IndexArgument, video_ids: VideoIdsArgument) -> None:
    """Take videos out of an index."""
    from dciml.index import ClipIndex
    from dciml.recipes.index import remove_videos

    opened = ClipIndex.open(index)
    removed = remove_videos(opened, video_ids)
    typer.echo(f"{index}: {_videos(removed)} removed, {_videos_of(opened)} left.")


def _with_windows(model: Model, window_seconds: float | None) -> Model:
    from dataclasses import replace

    from dciml.features.long_videos import WindowRule

    return model if window_seconds is None else replace(model, windows=WindowRule.of(window_seconds))


def _videos_of(index: ClipIndex) -> str:
    from dciml.search.long_videos import WindowedIds

    count = len(WindowedIds(index.video_ids).whole_videos)
    return (
        _videos(count)
        if count == len(index)
        else f"{_videos(count)} ({len(index)} with windows of long ones)"
    )


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
