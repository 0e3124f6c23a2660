"""The folder of videos that clients added: who owns it, and how files come into it and leave it."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dciml.errors import ConfigError
from dciml.files import remove_leftovers, write_json
from dciml.folders import refuse_foreign
from dciml.locks import Lock, take

ADDED_FILE = "added.json"
SERVING_LOCK = ".serving"
PIECE = 1024 * 1024
END_THE_OTHER = "end that server, or serve with --read-only"
_PARTS = {"videos", "features", "incoming"}


class AddedFolder:
    """Files and features of added videos; one server at a time.

    ADDED/added.json   says whose the folder is      ADDED/videos/     uploaded files
    ADDED/features/    the store of all that was added
    ADDED/incoming/    uploads whose job is not done; emptied when a server takes the folder

    Args:
        path: is made when the first video comes.
        is_named: whether the user said it; else it may have come with the index, and must be no link.
    Raises:
        DataError: it is there and holds something else, or another server has it.
        ConfigError: it, or a folder in it, is a link that nobody named.
    """

    def __init__(self, path: Path, *, is_named: bool) -> None:
        self.path, self._is_named = path, is_named
        self.videos, self.incoming, self.store = path / "videos", path / "incoming", path / "features"
        self._lock: Lock | None = None
        self._claiming = threading.Lock()
        if path.exists() or path.is_symlink():
            self._claim()

    def receive(self, content: BinaryIO, name: str) -> Path:
        """Keep what a client sends, under a name of our own; returns the file.

        Raises:
            OSError: there is no room, or no permission. DataError: the folder is not ours.
        """
        self._claim()
        self.incoming.mkdir(parents=True, exist_ok=True)
        file = self.incoming / name
        opened = file.open("xb")
        try:
            with opened:
                shutil.copyfileobj(content, opened, PIECE)
                opened.flush()
                os.fsync(opened.fileno())  # what the index names must be on disk before it does
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        return file

    def place(self, file: Path, final: Path) -> None:
        """Move a received file to where it stays. Nothing is written over: FileExistsError."""
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, final)
        except FileExistsError:
            raise
        except OSError:  # a file system without links; only we write here
            with final.open("xb"):
                pass
            file.replace(final)
        else:
            with suppress(OSError):  # it is placed; what stays in `incoming` goes at the next start
                file.unlink()

    def close(self) -> None:
        """Let the next server have it. Harmless when called twice."""
        with self._claiming:
            if self._lock is not None:
                self._lock.close()

    def _claim(self) -> None:
        with self._claiming:
            if self._lock is not None:
                return
            self._check_no_links()
            if not self._is_of_before():
                refuse_foreign(self.path, ADDED_FILE)
            self.path.mkdir(parents=True, exist_ok=True)
            lock = take(self.path, "adding videos", mend=END_THE_OTHER)
            try:
                write_json(self.path / ADDED_FILE, {"format": "dciml added videos", "format_version": 1})
                shutil.rmtree(self.incoming, ignore_errors=True)  # of servers that were killed
                remove_leftovers(self.path)
            except BaseException:
                lock.close()
                raise
            self._lock = lock

    def _check_no_links(self) -> None:
        parts = (self.videos, self.incoming, self.store)
        for folder in parts if self._is_named else (self.path, *parts):
            if folder.is_symlink():
                raise ConfigError(
                    f"{folder} is a link, through which files would be written elsewhere. To mend it: remove the link, "
                    "or say with --added where added videos are to be kept."
                )

    def _is_of_before(self) -> bool:
        """Whether an earlier version, which left no marker, made the folder."""
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        return bool(names) and names <= _PARTS and (self.store / "manifest.json").is_file()
