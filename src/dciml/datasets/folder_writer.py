"""Writing a data folder: whole, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dciml.datasets.folder import (
    DATA_FILE,
    FEATURES_FOLDER,
    FORMAT_NAME,
    FORMAT_VERSION,
    TEXT_FOLDER,
    VIDEOS_FILE,
    DataFolder,
)
from dciml.datasets.records import write_queries
from dciml.errors import DataError
from dciml.files import atomic_folder, refuse_taken, write_json, write_json_lines
from dciml.types import Query, Video

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_data_folder(
    path: str | Path,
    name: str,
    queries: Mapping[str, Sequence[Query]],
    videos: Sequence[Video],
    build_store: Callable[[Path], object],
    *,
    build_text: Callable[[Path], object] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> DataFolder:
    """Write a data folder beside its place and rename it once everything is there and fits together.

    Args:
        path: must not exist yet, or be an empty folder.
        name: of the data set.
        queries: of each split; the splits are its keys.
        videos: each names its split.
        build_store: is called with the folder in which it is to make a feature store of these videos.
        build_text: is called with a new folder in which it is to put text features that came with the data.
        notes: where the data came from; JSON values.
    Raises:
        DataError: the place is taken, a split has a name that cannot be a file's, or the parts do not fit.
    """
    path = Path(path)
    refuse_taken(path)
    for split in queries:
        if not _SPLIT_NAME.fullmatch(split) or split == Path(VIDEOS_FILE).stem:
            mend = "use letters, digits, '-' and '_' (but not 'videos')"
            raise DataError(f"a split cannot be named {split!r}", where=path, mend=mend)
    with atomic_folder(path) as partial:
        build_store(partial / FEATURES_FOLDER)
        if build_text is not None:
            (partial / TEXT_FOLDER).mkdir()
            build_text(partial / TEXT_FOLDER)
        _write_files(partial, name, queries, videos, notes or {})
        _check(DataFolder.open(partial))
    return DataFolder.open(path)


def _write_files(
    folder: Path,
    name: str,
    queries: Mapping[str, Sequence[Query]],
    videos: Sequence[Video],
    notes: Mapping[str, Any],
) -> None:
    durations = {video.video_id: video.duration_seconds for video in videos}
    rows = [
        {"video_id": video.video_id, "duration_seconds": video.duration_seconds, "split": video.split}
        for video in videos
    ]
    write_json_lines(folder / VIDEOS_FILE, rows)
    for split, items in queries.items():
        write_queries(folder / f"{split}.jsonl", items, durations)
    counts = {
        split: {"videos": sum(video.split == split for video in videos), "queries": len(items)}
        for split, items in queries.items()
    }
    head = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, "name": name}
    write_json(folder / DATA_FILE, head | {"splits": counts, "notes": dict(notes)})


def _check(folder: DataFolder) -> None:
    for split in folder.splits:
        folder.videos(split)
        folder.queries(split)
