"""A copy of an index, taken while searches and changes go on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dciml.files import atomic_folder, refuse_taken
from dciml.index.backend import VectorBackend
from dciml.index.catalogue import Catalogue
from dciml.index.references import FolderReference
from dciml.index.seals import rebase_videos

COPY_TRIES = 5


def copy_index(path: Path, catalogue: Catalogue, backend: VectorBackend, target: Path) -> None:
    """Copy the last committed state to a new folder; see `ClipIndex.back_up`."""
    refuse_taken(target)
    for attempt in range(COPY_TRIES):
        try:
            with atomic_folder(target) as temporary:
                copied = Catalogue(temporary / catalogue.file.name)
                catalogue.copy_to(copied.file)
                backend.copy(copied.read(), temporary)
                with copied.rewriting() as connection:
                    _rebase(connection, path, target)
            return
        except FileNotFoundError:
            # Another process has compacted the index after its catalogue was copied.
            if attempt == COPY_TRIES - 1:
                raise


def _rebase(connection: sqlite3.Connection, old: Path, new: Path) -> None:
    """Let relative references of an index start from its new folder."""

    def rebased(relative: str | None, absolute: str) -> str | None:
        return FolderReference.to(Path(FolderReference(relative, absolute).find(old)), new).relative

    connection.create_function("rebased", 2, rebased)
    connection.execute("UPDATE stores SET relative = rebased(relative, absolute)")
    rebase_videos(connection)
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    model = rebased(meta["model_relative"] or None, meta["model_absolute"])
    connection.execute("UPDATE meta SET value = ? WHERE name = 'model_relative'", (model or "",))
