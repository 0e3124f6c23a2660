"""Entering and removing videos in the catalogue, inside a transaction of `Catalogue.transaction`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dciml.index.references import FolderReference
from dciml.index.seals import seal_videos
from dciml.index.videos import VideoDetails


def store_key(connection: sqlite3.Connection, store: FolderReference) -> int:
    """The key of a feature store in the catalogue, entered when it is new."""
    row = connection.execute("SELECT store_key FROM stores WHERE absolute = ?", (store.absolute,)).fetchone()
    if row is not None:
        return int(row[0])
    cursor = connection.execute(
        "INSERT INTO stores (relative, absolute) VALUES (?, ?)", (store.relative, store.absolute)
    )
    return int(cursor.lastrowid or 0)


@dataclass(frozen=True)
class NewVideo:
    """A video to enter."""

    video_id: str
    duration_seconds: float
    details: VideoDetails


def insert_videos(
    connection: sqlite3.Connection, videos: Sequence[NewVideo], key_of_store: int, index_folder: Path
) -> list[int]:
    """Enter videos. Returns: their new keys, in the same order."""
    keys = []
    for video in videos:
        details = video.details
        media = None if details.media_path is None else FolderReference.to(details.media_path, index_folder)
        row = (
            video.video_id,
            video.duration_seconds,
            key_of_store,
            details.title_of(video.video_id),
            media and media.relative,
            media and media.absolute,
            details.date_unix,
            details.checksum,
            time.time(),
        )
        cursor = connection.execute(
            "INSERT INTO videos (video_id, duration_seconds, store_key, title, media_relative, "
            "media_absolute, date_unix, checksum, added_unix) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        keys.append(int(cursor.lastrowid or 0))
        tags = [(tag, keys[-1]) for tag in dict.fromkeys(details.tags)]
        connection.executemany("INSERT INTO tags VALUES (?, ?)", tags)
    if keys:
        seal_videos(connection, keys[0])
    return keys


def remove_videos(connection: sqlite3.Connection, keys: Sequence[int], generation: int) -> None:
    """Mark videos as removed by the commit `generation`; readers of older states still find them."""
    connection.executemany(
        "UPDATE videos SET removed = ? WHERE video_key = ?", [(generation, int(key)) for key in keys]
    )


def purge_removed(connection: sqlite3.Connection) -> None:
    """Forget the removed videos for good."""
    gone = "SELECT video_key FROM videos WHERE removed IS NOT NULL"
    connection.execute(f"DELETE FROM tags WHERE video_key IN ({gone})")
    connection.execute("DELETE FROM videos WHERE removed IS NOT NULL")
