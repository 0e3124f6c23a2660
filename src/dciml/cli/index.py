"""`dciml index`, `index-add` and `index-remove`: arguments and printing; the work is in `recipes.index`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

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
    device: DeviceOption = "cpu",
) -> None:
    """Make a corpus searchable: encode its videos with a model and write an index."""
    from dciml.build import load_model
    from dciml.recipes.index import build_index

    loaded = load_model(model, device)
    with _progress() as report:
        built = build_index(loaded, features, out, split=split, tags=tag or (), on_progress=report)
    typer.echo(f"{out}: {_videos(len(built))} indexed.")


def index_add(
    index: IndexArgument,
    features: FeaturesArgument,
    split: SplitOption = None,
    tag: TagOption = None,
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
        added = add_videos(opened, loaded, features, split=split, tags=tag or (), on_progress=report)
    typer.echo(f"{index}: {_videos(added)} added, {_videos(len(opened))} in all.")


def index_remove(index: IndexArgument, video_ids: VideoIdsArgument) -> None:
    """Take videos out of an index."""
    from dciml.index import ClipIndex
    from dciml.recipes.index import remove_videos

    opened = ClipIndex.open(index)
    removed = remove_videos(opened, video_ids)
    typer.echo(f"{index}: {_videos(removed)} removed, {_videos(len(opened))} left.")


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
