"""Moments that were found, with the files that they are in: what cutting and exporting share."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

from dciml.errors import DataError
from dciml.index import CatalogueVideo
from dciml.search import Answer, Searcher, whole_seconds

LONGEST_NAME_BYTES = 120
"""Of a video's id within a file name; a name may have 255 bytes, and more is added to it."""
_UNSAFE = re.compile(r"[^\w.\-]+")


def known_video(searcher: Searcher, video_id: str) -> CatalogueVideo:
    """What the index knows of a whole video, also where it holds windows of it; its title tells it from all others.

    Raises:
        DataError: the index does not hold it.
    """
    part = searcher.windowed.expand([video_id])[0]
    known = searcher.index.video(part)
    title = searcher.titles.get(video_id) or (video_id if known.title == part else known.title)
    seconds = whole_seconds(searcher.index, video_id, searcher.windowed)
    return replace(known, video_id=video_id, title=title, duration_seconds=seconds)


def video_file(video: CatalogueVideo) -> Path:
    """The file of a video.

    Raises:
        DataError: the index knows of none, or it is gone.
    """
    if video.media_path is None:
        what = f"the index knows no file of the video {video.video_id!r}"
        raise DataError(what, mend="index features that `dciml extract` made from video files")
    path = Path(video.media_path)
    if not path.is_file():
        what = f"the file of the video {video.video_id!r} is gone"
        mend = "bring it back, or extract and index it again where it is now"
        raise DataError(what, where=path, mend=mend)
    return path


def refuse_nothing(answer: Answer, *, take_all: bool) -> None:
    """Raises DataError: nothing was found, and the nearest moments were not asked for."""
    if not answer.hits:
        raise DataError("nothing was found", mend="say it in other words, or search in more videos")
    if not answer.found and not take_all:
        raise DataError("nothing was found", mend="say it in other words, or take the nearest with --all")


def safe_name(text: str) -> str:
    """A text as a part of a file name, on any system: no separators, blanks or signs, and not too long.

    >>> safe_name("kitchen/Monday 3: tür"), safe_name("../.."), safe_name("?")
    ('kitchen_Monday_3_tür', '_..', '_')
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).lstrip(".")
    return name.encode(errors="replace")[:LONGEST_NAME_BYTES].decode(errors="ignore") or "_"


def plain_line(text: str) -> str:
    """A text on one line, without signs that XML and lists of cuts cannot hold.

    >>> plain_line("a\\x00 dog\\n runs")
    'a dog runs'
    """
    whole = text.encode(errors="replace").decode()
    kept = (" " if unicodedata.category(sign) in ("Cc", "Cn", "Co") else sign for sign in whole)
    return " ".join("".join(kept).split())
