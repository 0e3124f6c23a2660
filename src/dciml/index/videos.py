"""What an index knows of its videos beside their vectors, and how to choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VideoDetails:
    """What may be told of a video when it is added.

    Attributes:
        title: for people; None: the stem of the media file, else the id.
        media_path: the video file.
        tags: any words.
        date_unix: seconds since 1970, UTC.
        checksum: of what the vectors were made from, so that a changed video can be told from a kept one.
    """

    title: str | None = None
    media_path: Path | None = None
    tags: tuple[str, ...] = ()
    date_unix: float | None = None
    checksum: str | None = None

    def title_of(self, video_id: str) -> str:
        """The title, or what stands in for it."""
        return self.title or (self.media_path.stem if self.media_path is not None else video_id)


@dataclass(frozen=True, slots=True)
class CatalogueVideo:
    """A video of an index.

    Attributes:
        key: never used a second time, not even after the video is removed.
        media_path: the video file, as found now; when it is gone, where it was; None: not known.
        date_unix: of the video, None: not known. `added_unix`: when it came into the index.
        checksum: see `VideoDetails`.
    """

    key: int
    video_id: str
    duration_seconds: float
    title: str
    media_path: str | None
    tags: tuple[str, ...]
    date_unix: float | None
    checksum: str | None
    added_unix: float


@dataclass(frozen=True, slots=True)
class VideoFilter:
    """Which videos are wanted; every field that is given must hold.

    Attributes:
        video_ids: one of these.
        folder: the media file lies in this folder, or deeper.
        tag: has this tag.
        after_unix, before_unix: the date is at or after, or before; a video without a date is neither.
        min_duration_seconds, max_duration_seconds: both inclusive.
    """

    video_ids: Sequence[str] | None = None
    folder: str | Path | None = None
    tag: str | None = None
    after_unix: float | None = None
    before_unix: float | None = None
    min_duration_seconds: float | None = None
    max_duration_seconds: float | None = None
