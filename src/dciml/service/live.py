"""The index that is being served: one searcher at a time, replaced as a whole when the index changes."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dciml.errors import DataError, DcimlError
from dciml.features import FeatureStore
from dciml.index import CATALOGUE_FILE, Catalogue, CatalogueVideo, ClipIndex
from dciml.model_folder import Model, load_model
from dciml.search import Searcher, whole_seconds
from dciml.service.errors import ServiceError, UnknownVideo
from dciml.service.files import find_media, has_video_name
from dciml.service.settings import ServiceSettings

_log = logging.getLogger("dciml.service")


class Snapshot:
    """An index as it was at one moment; requests that began with it finish with it.

    Its videos are whole ones, also where the index holds windows of a long video.
    """

    def __init__(self, searcher: Searcher, settings: ServiceSettings) -> None:
        self.searcher, self._settings = searcher, settings
        self.index, self.windowed = searcher.index, searcher.windowed
        self.generation = self.index.generation
        self.video_ids = self.windowed.whole_videos

    def __contains__(self, video_id: str) -> bool:
        return self.windowed.find(video_id) is not None

    def parts(self, video_id: str) -> list[str]:
        """What the index holds of a video: itself, or its windows. Raises UnknownVideo."""
        if video_id not in self:
            raise UnknownVideo(video_id)
        return self.windowed.expand([video_id])

    def duration_seconds(self, video_id: str) -> float:
        """How long a video is. Raises UnknownVideo."""
        self.parts(video_id)
        return whole_seconds(self.index, video_id, self.windowed)

    def video(self, video_id: str) -> CatalogueVideo:
        """What the catalogue knows of a video.

        Raises:
            UnknownVideo: also when it has been removed by now.
            ServiceError: 503, the catalogue cannot be read.
        """
        part = self.parts(video_id)[0]
        try:
            known = self.index.video(part)
        except DataError:
            raise UnknownVideo(video_id) from None
        except sqlite3.Error as error:
            raise ServiceError(503, "The catalogue of the index cannot be read now.") from error
        title = self._titles().get(video_id) or (video_id if known.title == part else known.title)
        return replace(
            known, video_id=video_id, title=title, duration_seconds=self.duration_seconds(video_id)
        )

    def file(self, video_id: str) -> Path | None:
        """The file of a video, where there is one that this server may play; None: there is none."""
        try:
            media_path = self.video(video_id).media_path
            if media_path is None:
                return None
            return find_media(media_path, self._settings.played_roots, self._settings.allow_roots)
        except ServiceError:
            return None

    def _titles(self) -> Mapping[str, str]:
        """Titles that tell videos apart which are called alike, by id."""
        try:
            return self.searcher.titles
        except sqlite3.Error as error:
            raise ServiceError(503, "The catalogue of the index cannot be read now.") from error


class LiveCorpus:
    """Opens the index, notices changes, and hands out the present snapshot.

    Raises:
        ModelError, DataError: the index, its model or its features cannot be opened.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self.model = self._load_model(self._open_index())
        self._snapshot = self._open()
        self.reloads, self._trouble = 0, ""

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
                if self._is_present():
                    return False
                self._snapshot = self._open()
            except (DcimlError, sqlite3.Error, OSError) as error:
                if str(error) != self._trouble:  # it is looked at every second, and told once
                    _log.warning("the changed index cannot be used, the old one goes on answering: %s", error)
                self._trouble = str(error)
                return False
            self.reloads, self._trouble = self.reloads + 1, ""
            return True

    def change(self, work: Callable[[Snapshot, ClipIndex, Model], None]) -> None:
        """Change the index through `work` and take up the result; changes wait for each other.

        `work` gets the present snapshot to look at, and an index of its own to change, so that searches are not
        disturbed.
        """
        with self._lock:
            now = self._snapshot if self._is_present() else self._open()
            work(now, self._open_index(), self.model)
            self._snapshot = self._open()

    def exchange(self, work: Callable[[], None]) -> None:
        """Let `work` put another index in the place of this one, and take that up; changes wait meanwhile."""
        with self._lock:
            work()
            self._snapshot = self._open()

    def _open(self) -> Snapshot:
        index = self._open_index()
        if index.fingerprint != self.model.engine.fingerprint:
            self.model = self._load_model(index)
        store = FeatureStore.open(self.settings.features or index.store_path())
        model = self.model
        searcher = Searcher(model.engine, index, store, model.answer, model.calibration)
        return Snapshot(searcher, self.settings)

    def _open_index(self) -> ClipIndex:
        return ClipIndex.open(self.settings.present_index, store=self.settings.vector_store)

    def _is_present(self) -> bool:
        """Whether the snapshot shows the last commit. Raises DcimlError, OSError, sqlite3.Error."""
        place = self.settings.present_index
        if place != self._snapshot.index.path:
            return False
        return Catalogue(place / CATALOGUE_FILE).generation() == self._snapshot.generation

    def _load_model(self, index: ClipIndex) -> Model:
        return load_model(self.settings.model or index.model_folder(), self.settings.device)


LOOKED_AT = 200  # videos, at even distances


def videos_elsewhere(now: Snapshot, settings: ServiceSettings) -> str | None:
    """A sentence with the option to give when files of videos lie where the server may not play from; None: none do."""
    step = max(1, len(now.video_ids) // LOOKED_AT)
    looked_at = now.video_ids[::step]
    outside = [file for video_id in looked_at if (file := _refused(now, video_id, settings)) is not None]
    if not outside:
        return None
    folders = sorted({str(file.parent) for file in outside})
    try:
        common = [os.path.commonpath(folders)]
    except ValueError:  # on different drives
        common = folders[:3]
    options = " ".join(f"--media-root {folder}" for folder in (common if len(common[0]) > 1 else folders[:3]))
    return (
        f"Of {len(looked_at)} videos looked at, the files of {len(outside)} do not lie beside the index, and are not "
        f"played. To play them, if you trust this index: {options}"
    )


def _refused(now: Snapshot, video_id: str, settings: ServiceSettings) -> Path | None:
    """The file of a video, where there is one that could be played, but may not be."""
    try:
        media_path = now.video(video_id).media_path
        if media_path is None or not has_video_name(file := Path(media_path)) or not file.is_file():
            return None
        find_media(media_path, settings.played_roots, settings.allow_roots)
    except ServiceError as refusal:
        return file if refusal.status_code == 403 else None
    except (DcimlError, OSError, ValueError):
        return None
    return None
