"""`dciml index` and the commands that change, check and copy an index: arguments and printing only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dciml.cli.options import (
    DeviceOption,
    IndexArgument,
    JsonOption,
    MovedModelOption,
    MovedStoreOption,
    WindowOption,
    new_folder,
    say,
    with_windows,
)

if TYPE_CHECKING:
    from dciml.index import ClipIndex

ModelArgument = Annotated[Path, typer.Argument(help="Model folder.")]
FeaturesArgument = Annotated[Path, typer.Argument(help="Feature store, or data folder.")]
ChangedIndexArgument = Annotated[Path, typer.Argument(help="Index folder, as written by `dciml index`.")]
VideoIdsArgument = Annotated[list[str], typer.Argument(help="Ids of the videos to take out.")]
OutOption = Annotated[
    Path, typer.Option("--out", callback=new_folder, help="Folder to write; must not exist yet.")
]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Of a data folder: only this split's videos.")
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", help="Tag for these videos, to filter by; may be repeated.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Keep the vectors in Milvus: milvus:FILE.db (Milvus Lite) or milvus:http://HOST:19530 (a server or "
        "cluster; its token is read from MILVUS_TOKEN). Default: in the index folder.",
    ),
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Also replace videos whose features have changed since.")
]
TargetArgument = Annotated[
    Path, typer.Argument(callback=new_folder, help="Folder to write; must not exist yet.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("index")(index)
    app.command("index-add")(index_add)
    app.command("index-remove")(index_remove)
    app.command("index-compact")(index_compact)
    app.command("index-verify")(index_verify)
    app.command("index-backup")(index_backup)


def index(
    model: ModelArgument,
    features: FeaturesArgument,
    out: OutOption,
    split: SplitOption = None,
    tag: TagOption = None,
    window_seconds: WindowOption = None,
    store: StoreOption = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Make a corpus searchable: encode its videos with a model and write an index."""
    from dciml.model_folder import load_model
    from dciml.recipes.index import build_index

    loaded = with_windows(load_model(model, device), window_seconds)
    with _progress() as report:
        built = build_index(
            loaded, features, out, split=split, tags=tag or (), store=store, on_progress=report
        )
    say(f"{out}: {_videos_of(built)} indexed.", _facts(out, built), as_json=json)


def index_add(
    index: ChangedIndexArgument,
    features: FeaturesArgument,
    split: SplitOption = None,
    tag: TagOption = None,
    replace: ReplaceOption = False,
    window_seconds: WindowOption = None,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    store: MovedStoreOption = None,
    json: JsonOption = False,
) -> None:
    """Add the videos that an index does not hold yet."""
    from dciml.homes import refuse_home
    from dciml.index import ClipIndex
    from dciml.model_folder import load_model
    from dciml.recipes.index import add_videos

    refuse_home(index, "put the video file into {folders}; `dciml serve {home}` reads it and adds it")
    opened = ClipIndex.open(index, store=store)
    loaded = with_windows(load_model(model or opened.model_folder(), device), window_seconds)
    with _progress() as report:
        added = add_videos(
            opened, loaded, features, split=split, tags=tag or (), replace=replace, on_progress=report
        )
    done = "added or replaced" if replace else "added"
    facts = _facts(index, opened) | {"added": added}
    say(f"{index}: {_videos(added)} {done}, {_videos_of(opened)} in all.", facts, as_json=json)


def index_remove(
    index: ChangedIndexArgument,
    video_ids: VideoIdsArgument,
    store: MovedStoreOption = None,
    json: JsonOption = False,
) -> None:
    """Take videos out of an index."""
    from dciml.homes import refuse_home
    from dciml.index import ClipIndex
    from dciml.recipes.index import remove_videos

    refuse_home(
        index, "take the video file out of {folders}; `dciml serve {home}` then takes it out of the index"
    )
    opened = ClipIndex.open(index, store=store)
    removed = remove_videos(opened, video_ids)
    facts = _facts(index, opened) | {"removed": removed}
    say(f"{index}: {_videos(removed)} removed, {_videos_of(opened)} left.", facts, as_json=json)


def index_compact(
    index: ChangedIndexArgument, store: MovedStoreOption = None, json: JsonOption = False
) -> None:
    """Give back the room of removed videos, and fit an index's files to what it holds now; searches may go on."""
    from dciml.homes import refuse_home
    from dciml.index import ClipIndex

    refuse_home(index, "end its server, and name the index itself, such as {home}/index")
    opened = ClipIndex.open(index, store=store)
    opened.compact()
    say(f"{index}: {_videos_of(opened)}, compact.", _facts(index, opened), as_json=json)


def index_verify(index: IndexArgument, store: MovedStoreOption = None, json: JsonOption = False) -> None:
    """Read everything in an index and compare checksums; the exit status is 1 when something is damaged."""
    from dciml.homes import index_in_use
    from dciml.index import CATALOGUE_FILE, Catalogue, ClipIndex, verify_index

    index = index_in_use(index)
    damages = verify_index(index, store=store)
    for damage in damages:
        typer.echo(f"{index}: {damage}", err=True)
    if damages:
        if json:
            say("", {"index": index, "damages": damages}, as_json=True)
        raise typer.Exit(1)
    opened = ClipIndex.open(index, store=store)
    is_sealed = Catalogue(index / CATALOGUE_FILE).is_sealed()
    facts = _facts(index, opened) | {"damages": [], "catalogue_has_checksums": is_sealed}
    say(f"{index}: {_videos_of(opened)}, whole.", facts, as_json=json)
    if not is_sealed and not json:
        typer.echo(
            f"{index}: made by an older version, so that titles, paths, times and tags have no checksums; "
            f"`dciml index-compact {index}` gives them some."
        )


def index_backup(index: IndexArgument, target: TargetArgument, json: JsonOption = False) -> None:
    """Copy an index as it was last committed, while searches and changes go on."""
    from dciml.homes import index_in_use
    from dciml.index import ClipIndex

    ClipIndex.open(index_in_use(index)).back_up(target)
    copy = ClipIndex.open(target)
    say(f"{target}: {_videos_of(copy)}.", _facts(target, copy), as_json=json)


def _facts(path: Path, index: ClipIndex) -> dict[str, object]:
    from dciml.search import WindowedIds

    return {
        "index": path,
        "videos": len(WindowedIds(index.video_ids).whole_videos),
        "with_windows": len(index),
    }


def _videos_of(index: ClipIndex) -> str:
    from dciml.search import WindowedIds

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
    from dciml.progress_line import ProgressLine

    with ProgressLine() as line:
        line.begin("reading model and features")

        def report(done: int, total: int) -> None:
            line.tell(done, total=total, what=f"{done} of {_videos(total)}")

        yield report
