"""The index that is being served: one searcher at a time, replaced as a whole when the index changes."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dciml.build import Model, load_model
from dciml.errors import DcimlError
from dciml.features.store import FeatureStore
from dciml.index import ClipIndex
from dciml.search.searcher import Searcher
from dciml.service.settings import ServiceSettings

_log = logging.getLogger("dciml.service")


@dataclass(frozen=True)
class Snapshot:
    """An index as it was at one moment; requests that began with it finish with it."""

    searcher: Searcher
    generation: int

    @property
    def index(self) -> ClipIndex:
        """The index of the searcher; read it only."""
        return self.searcher.index


class LiveCorpus:
    """Opens the index, notices changes, and hands out the present snapshot.

    Raises:
        ModelError, DataError: the index, its model or its features cannot be opened.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self.model = self._load_model(ClipIndex.open(settings.index))
        self._snapshot = self._open()
        self.reloads = 0

    @property
    def now(self) -> Snapshot:
        """The present snapshot; keep it for the length of a request."""
        return self._snapshot

    def refresh(self) -> bool:
        """Take up what others have changed. Returns: whether there was anything.

        A broken state is logged, and the old snapshot goes on answering.
        """
        with self._lock:
            try:
                if generation_of(self.settings.index) == self._snapshot.generation:
                    return False
                self._snapshot = self._open()
            except (DcimlError, sqlite3.Error, OSError) as error:
                _log.warning("the changed index cannot be used, the old one goes on answering: %s", error)
                return False
            self.reloads += 1
            return True

    def change(self, work: Callable[[ClipIndex, Model], None]) -> None:
        """Change the index through `work` and take up the result; changes wait for each other.

        `work` gets an index of its own, so that searches are not disturbed.
        """
        with self._lock:
            work(ClipIndex.open(self.settings.index), self.model)
            self._snapshot = self._open()

    def _open(self) -> Snapshot:
        generation = generation_of(self.settings.index)  # before: a change in between is noticed next time
        index = ClipIndex.open(self.settings.index)
        if index.fingerprint != self.model.engine.fingerprint:
            self.model = self._load_model(index)
        store = FeatureStore.open(self.settings.features or index.store_path())
        return Snapshot(Searcher(self.model.engine, index, store, self.model.answer), generation)

    def _load_model(self, index: ClipIndex) -> Model:
        return load_model(self.settings.model or index.model_folder(), self.settings.device)


def generation_of(index: Path) -> int:
    """The number of the last change that was committed to an index."""
    file = index / "catalogue.sqlite"
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        (value,) = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
    return int(value)
