"""Which videos have the same content: SHA-256 of their files, kept beside them.

What is kept is no more than a memory: a file that it does not know, or that has changed, is read again, and only when
another one has its size.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from dciml.service.errors import ServiceError

CONTENTS_FILE = "contents.sqlite"
_log = logging.getLogger("dciml.service")


@dataclass(frozen=True)
class Content:
    """What a file holds: its hash (SHA-256, hexadecimal) and its size."""

    digest: str
    num_bytes: int


class Contents:
    """Finds the video that has some content. Thread-safe.

    Args:
        file: the memory; made when there is something to keep. One that is damaged is begun anew, and one that cannot
            be written is no fault.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int, str]] | None = None  # path → size, time in ns, digest

    def find(
        self, content: Content, media_paths: Mapping[str, str], real_path: Callable[[str], Path]
    ) -> str | None:
        """The id of a video that has this content; None: there is none.

        Args:
            media_paths: the files of the videos, by id.
            real_path: tells the real path of such a file, if it may be read; else raises ServiceError.
        """
        for video_id, media_path in media_paths.items():
            try:
                if Path(media_path).stat().st_size != content.num_bytes:
                    continue
                path = real_path(media_path)
                if self._digest(path) == content.digest:
                    return video_id
            except (OSError, ValueError, ServiceError):
                continue
        return None

    def keep(self, path: Path, content: Content) -> None:
        """Remember what a file holds, which has just been written."""
        with suppress(OSError):
            status = path.stat()
            if status.st_size == content.num_bytes:
                self._keep(str(path), (status.st_size, status.st_mtime_ns, content.digest))

    def _digest(self, path: Path) -> str:
        status = path.stat()
        known = self._all().get(str(path))
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        self._keep(str(path), (status.st_size, status.st_mtime_ns, digest))
        return digest

    def _all(self) -> dict[str, tuple[int, int, str]]:
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known

    def _read(self) -> dict[str, tuple[int, int, str]]:
        if not self.file.is_file() or self.file.is_symlink():
            return {}
        try:
            with closing(sqlite3.connect(self.file)) as connection:
                rows = connection.execute("SELECT path, num_bytes, modified_ns, digest FROM contents")
                return {str(path): (int(size), int(at), str(digest)) for path, size, at, digest in rows}
        except (sqlite3.Error, ValueError, TypeError) as error:
            _log.warning(
                "what was known of the content of videos cannot be read (%s); it is begun anew", error
            )
            with suppress(OSError):
                self.file.unlink()
            return {}

    def _keep(self, path: str, known: tuple[int, int, str]) -> None:
        self._all()[path] = known
        if self.file.is_symlink() or not self.file.parent.is_dir():
            return
        with (
            self._lock,
            suppress(sqlite3.Error),
            closing(sqlite3.connect(self.file)) as connection,
            connection,
        ):
            connection.execute(
                "CREATE TABLE IF NOT EXISTS contents "
                "(path TEXT PRIMARY KEY, num_bytes INTEGER, modified_ns INTEGER, digest TEXT)"
            )
            connection.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)", (path, *known))
