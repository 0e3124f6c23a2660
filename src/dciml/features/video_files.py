"""Files, folders and globs → video files with their ids."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from dciml.errors import DataError
from dciml.names import same_name

IdForm = Literal["stem", "path"]

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *(
            "3g2",
            "3gp",
            "asf",
            "avi",
            "divx",
            "dv",
            "f4v",
            "flv",
            "gif",
            "h264",
            "h265",
            "hevc",
            "ivf",
            "m1v",
            "m2t",
        ),
        *(
            "m2ts",
            "m2v",
            "m4v",
            "mjpeg",
            "mjpg",
            "mkv",
            "mov",
            "mp4",
            "mpe",
            "mpeg",
            "mpg",
            "mts",
            "mxf",
            "nut",
        ),
        *("ogm", "ogv", "qt", "rm", "rmvb", "swf", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
"""What counts as a video in a folder; a file that is named itself may have any name."""


def find_videos(
    paths: Sequence[str | Path], ids: IdForm = "stem", *, may_be_empty: bool = False
) -> dict[str, Path]:
    """The video files that paths name, by id, in the order of the paths and of the names inside folders.

    Args:
        paths: files, folders (searched with all folders inside, hidden ones left out) and globs (`**` is any depth).
        ids: `stem`: the name of the file without its ending; `path`: the way from the folder that was named, with
            that folder's own name: `clips/kitchen/a.mp4`.
        may_be_empty: a path without any video is no error.
    Raises:
        DataError: a path that leads nowhere, no video, or two files with the same id.
    """
    files: dict[Path, str] = {}
    for path in paths:
        found = list(_videos_at(str(path), ids))
        if not found and not may_be_empty:
            raise DataError(
                "there is no video here", where=path, mend=f"name files, or folders with {_KNOWN}"
            )
        for file, video_id in found:
            files.setdefault(Path(os.path.abspath(file)), video_id)
    by_id: dict[str, Path] = {}
    for file, video_id in files.items():
        if video_id in by_id:
            other = "with --ids path they differ" if ids == "stem" else "name the folder that holds both"
            raise DataError(
                f"this file and {by_id[video_id]} would both have the id {video_id!r}",
                where=file,
                mend=other,
            )
        by_id[video_id] = file
    return by_id


_KNOWN = "files such as .mp4, .mkv, .webm, .mov or .avi in them"


def _videos_at(text: str, ids: IdForm) -> Iterator[tuple[Path, str]]:
    path = Path(text)
    if path.is_dir():
        for file in _videos_in(path):
            yield file, _id_of(file, path, ids)
    elif path.exists():
        yield path, _id_of(path, path.parent, ids)
    elif glob.has_magic(text):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        for name in sorted(glob.glob(text, recursive=True)):
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and Path(name).is_file():
                yield Path(name), _id_of(Path(name), root, ids)
    else:
        raise DataError("there is no such file or folder", where=text, mend="check the path")


def _videos_in(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()  # folders that were entered: links may lead round in circles
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield Path(root) / name


def _id_of(file: Path, root: Path, ids: IdForm) -> str:
    root = Path(os.path.abspath(root))
    path = Path(os.path.abspath(file))
    video_id = path.stem if ids == "stem" else (root.name / path.relative_to(root)).as_posix()
    try:
        video_id.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name of this file is not UTF-8: {os.fsencode(path)!r}",
            where=path.parent,
            mend="rename it, since its name becomes the id of the video",
        ) from error
    return same_name(video_id)
