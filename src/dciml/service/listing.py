"""Looking through the videos of an index: by words in their names, titles and tags, newest or oldest first."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Literal

from dciml.features.long_videos import whole_id
from dciml.index import CatalogueVideo
from dciml.service.answers import as_video
from dciml.service.errors import ServiceError, UnknownVideo
from dciml.service.live import Snapshot
from dciml.service.schemas import VideoPage

Order = Literal["newest", "oldest"]


def list_videos(now: Snapshot, words: str, order: Order, offset: int, limit: int) -> VideoPage:
    """Some of the videos whose id, title or one of whose tags contains `words`; "newest": the last added first.

    Raises:
        ServiceError: 503, the catalogue cannot be read.
    """
    ids = now.video_ids if not words else named_videos(now, words)
    total = len(ids)
    places = range(offset, min(offset + limit, total))
    chosen = (ids[place if order == "oldest" else total - 1 - place] for place in places)
    return VideoPage(total=total, videos=[as_video(video) for video in _present(now, chosen)])


def named_videos(now: Snapshot, words: str) -> tuple[str, ...]:
    """The ids of whole videos whose id, title or one of whose tags contains `words`, in the order of adding."""
    wanted = folded(words)
    try:  # of a window of a long video, the times in its id are nobody's name
        found = now.index.find(lambda text: wanted in folded(whole_id(text)))
    except sqlite3.Error as error:
        raise ServiceError(503, "The catalogue of the index cannot be read now.") from error
    return tuple(dict.fromkeys(map(whole_id, found)))


def _present(now: Snapshot, video_ids: Iterable[str]) -> Iterator[CatalogueVideo]:
    """What the catalogue knows of these videos, but for those that another process has removed by now."""
    for video_id in video_ids:
        with suppress(UnknownVideo):
            yield now.video(video_id)


def folded(text: str) -> str:
    """Text without differences of case, width and composition.

    >>> folded("Strasse CAFE\u0301") == folded("Straße café")
    True
    """
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
