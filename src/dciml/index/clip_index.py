"""The index folder: one fused vector a clip, searched by inner product and grouped by video.

A change writes new files and commits them with the catalogue's transaction. Killed at any point, the folder holds
the last committed state; what is left over is swept by the next change. An index that is open answers from the
state that it opened, whatever others change, until `refresh`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.errors import DataError, DcimlError, ModelError
from dciml.files import atomic_folder, refuse_taken
from dciml.index.backend import FloatArray, VectorBackend
from dciml.index.catalogue import Catalogue, IndexFacts, IndexOptions
from dciml.index.embedded import EmbeddedVectors
from dciml.index.milvus import MilvusVectors, absolute_store, new_collection
from dciml.index.references import FolderReference
from dciml.index.state import IndexState, VideoMatches, check_new, checked_queries
from dciml.index.tables import NewVideo, insert_videos, purge_removed, rebase_videos, remove_videos, store_key
from dciml.index.videos import CatalogueVideo, VideoDetails, VideoFilter

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


def verify(catalogue: Catalogue, backend_of: Callable[[IndexFacts], VectorBackend]) -> list[str]:
    """Read everything and compare checksums. Returns: a sentence for each damage; of a whole index none.

    Args:
        backend_of: gives the vectors of an index; may raise DcimlError.
    """
    found = catalogue.verify()
    try:
        contents = catalogue.read()
        backend = backend_of(contents.facts)
        with catalogue.reading() as connection:
            found += backend.verify(connection, contents)
        if not found:
            backend.open(contents)
    except (DcimlError, sqlite3.Error, OSError) as error:
        if not found:
            found.append(str(error))
    return found


CATALOGUE_FILE = "catalogue.sqlite"
READ_TRIES = 5


@dataclass(frozen=True)
class VideoMatch:
    """A video found for a query. `score` is the maximum of `clip_scores` (S,), its clips' inner products."""

    video_id: str
    score: float
    clip_scores: FloatArray
    duration_seconds: float


class ClipIndex:
    """An index folder opened for search and change; one thread at a time, each with an index of its own."""

    def __init__(self, path: Path, store: str | None = None) -> None:
        self.path = path
        self._catalogue = Catalogue(path / CATALOGUE_FILE)
        self._backend = _backend(path, self._catalogue.read().facts, store)
        self._state = self._read()

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        num_clips: int,
        width: int,
        fingerprint: str,
        model_folder: Path,
        store_path: Path,
        options: IndexOptions | None = None,
    ) -> ClipIndex:
        """Make an index without videos.

        Args:
            num_clips: clips a video (S). `width`: of the vectors (D).
            fingerprint: of the model that makes the vectors; `model_folder` is where it lives.
            store_path: the feature store of the videos; `add` may name others.
        Raises:
            DataError: there is something at `path` already.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(
                "there is something here already",
                where=path,
                mend="name a new folder, or remove this one first",
            )
        path.mkdir(parents=True, exist_ok=True)
        model = FolderReference.to(model_folder, path)
        options = options or IndexOptions()
        if options.store is not None:
            options = replace(options, store=absolute_store(options.store), collection=new_collection())
        facts = IndexFacts(num_clips, width, fingerprint, model, options)
        Catalogue(path / CATALOGUE_FILE).create(facts, FolderReference.to(store_path, path))
        return cls(path, options.store)

    @classmethod
    def open(cls, path: str | Path, *, store: str | None = None) -> ClipIndex:
        """Open an index folder.

        Args:
            store: where the database with its vectors is now (`milvus:URI`), if it has moved, or asks for a token.
        Raises:
            DataError: there is no index.
            ModelError: it is damaged or of another format version.
        """
        path = Path(path)
        _catalogue_of(path)
        return cls(path, store)

    def refresh(self) -> bool:
        """Go on with the last committed state. Returns: whether it is another one than before.

        Places in earlier `VideoMatches` then count no more. A service that answers on several threads opens
        another `ClipIndex` and hands that to new requests.
        """
        before = self._state.contents.generation
        if self._catalogue.generation() == before:
            return False
        self._state = self._read()
        return True

    def __len__(self) -> int:
        """How many videos."""
        return len(self.video_ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._state.place_of

    @property
    def generation(self) -> int:
        """Number of the commit that this index shows."""
        return self._state.contents.generation

    @property
    def video_ids(self) -> tuple[str, ...]:
        """All ids, in the order in which they were added."""
        return self._state.contents.video_ids

    @property
    def durations_seconds(self) -> NDArray[np.float64]:
        """(videos,), in the order of `video_ids`."""
        return self._state.contents.durations_seconds

    @property
    def num_clips(self) -> int:
        """Clips a video (S)."""
        return self._facts.num_clips

    @property
    def width(self) -> int:
        """Width of the vectors (D)."""
        return self._facts.width

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that the index was built with."""
        return self._facts.fingerprint

    @property
    def _facts(self) -> IndexFacts:
        return self._state.contents.facts

    def check_fingerprint(self, fingerprint: str) -> None:
        """Refuse a model that the index was not built with. Raises ModelError."""
        if fingerprint != self.fingerprint:
            raise ModelError(
                f"{self.path}: the index was built with another model (the one in "
                f"{self._facts.model.absolute}, fingerprint {self.fingerprint[:12]}; this one has "
                f"{fingerprint[:12]}). To mend it: use the model that the index was built with, or build an "
                f"index with this one: `dciml index MODEL FEATURES --out FOLDER`."
            )

    def model_folder(self) -> Path:
        """The folder of the model. Raises ModelError when it has moved, naming the option to pass."""
        return self._facts.model.resolve(self.path, what="model", option="--model")

    def store_path(self, video_id: str | None = None) -> Path:
        """The feature store of a video; without a video, the one that the index was created with.

        Raises:
            DataError: the index does not hold the video.
            ModelError: the store has moved; the message names the option to pass.
        """
        contents = self._state.contents
        stores = contents.stores
        key = min(stores) if video_id is None else int(contents.store_keys[self.places([video_id])[0]])
        return stores[key].resolve(self.path, what="feature store", option="--features")

    def is_in_first_store(self, video_id: str) -> bool:
        """Are a video's features in the store that the index was created with? Raises DataError for an unknown one."""
        contents = self._state.contents
        return int(contents.store_keys[self.places([video_id])[0]]) == min(contents.stores)

    def video(self, video_id: str) -> CatalogueVideo:
        """What the catalogue knows of a video.

        Raises:
            DataError: the index does not hold it; or it was removed, and the index compacted, since this was opened.
        """
        video = self._catalogue.video(int(self._state.contents.keys[self.places([video_id])[0]]))
        if video is None:
            raise DataError(
                f"the video {video_id!r} has been removed since the index was opened",
                where=self.path,
                mend="open the index again",
            )
        return video

    def select(self, wanted: VideoFilter) -> tuple[str, ...]:
        """The ids of the videos that a filter lets through, in the order of `video_ids`; there may be none.

        Raises:
            DataError: `wanted.video_ids` names a video that the index does not hold.
        """
        named = None if wanted.video_ids is None else set(wanted.video_ids)
        if named is not None:
            self.places(list(named))
        contents = self._state.contents
        last_key = int(contents.keys.max(initial=0))
        return tuple(
            video_id
            for video_id in self._catalogue.select(wanted, contents.generation, last_key)
            if named is None or video_id in named
        )

    def find(self, fits: Callable[[str], bool]) -> tuple[str, ...]:
        """The ids of the videos whose id, title or one of whose tags fits, in the order of `video_ids`."""
        contents = self._state.contents
        last_key = int(contents.keys.max(initial=0))
        return tuple(self._catalogue.find(fits, contents.generation, last_key))

    def same_titles(self) -> tuple[tuple[str, str, str | None], ...]:
        """Id, title and file, as it was called when it came, of all videos whose title another one has too."""
        contents = self._state.contents
        last_key = int(contents.keys.max(initial=0))
        return tuple(self._catalogue.same_titles(contents.generation, last_key))

    def media_paths(self) -> dict[str, str]:
        """The files of the videos by id, as the last commit has them; a video without one is left out."""
        return self._catalogue.media_paths()

    def places(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Where videos stand in `video_ids`. Raises DataError for one that the index does not hold."""
        return self._state.places(video_ids)

    def add(
        self,
        video_ids: Sequence[str],
        vectors: ArrayLike,
        durations_seconds: ArrayLike,
        store_path: Path | None = None,
        details: Sequence[VideoDetails] | None = None,
        replaces: Sequence[str] = (),
    ) -> None:
        """Add videos; committed on return, all or none.

        Args:
            vectors: (V, S, D), fused clip vectors.
            durations_seconds: (V,), positive.
            store_path: the feature store that holds them; None: the one that the index was created with.
            details: of each video, for the catalogue.
            replaces: ids of videos that give way in the same commit; the new ones may have their ids.
        Raises:
            DataError: an id comes twice or is in the index already and not replaced; a vector or a duration is
                not usable; or another process changed the index.
        """
        array = np.ascontiguousarray(vectors, dtype=np.float32)
        durations = np.asarray(durations_seconds, dtype=np.float64)
        leaving = set(replaces)
        held = {v for v in video_ids if v in self and v not in leaving}
        check_new(video_ids, array, durations, held, self.path, self._facts)
        if not len(video_ids):
            return
        contents = self._state.contents
        store = contents.stores[min(contents.stores)]
        if store_path is not None:
            store = FolderReference.to(store_path, self.path)
        told = [VideoDetails()] * len(video_ids) if details is None else details
        new = [NewVideo(*row) for row in zip(video_ids, durations.tolist(), told, strict=True)]
        old = contents.keys[self.places(replaces)]

        def change(connection: sqlite3.Connection) -> None:
            remove_videos(connection, old.tolist(), contents.generation + 1)
            keys = insert_videos(connection, new, store_key(connection, store), self.path)
            self._backend.add(connection, keys, array)
            self._backend.settle(connection, everything=False)

        self._commit(change)

    def remove(self, video_ids: Sequence[str]) -> None:
        """Remove videos; committed on return, all or none. Raises DataError for an unknown one."""
        contents = self._state.contents
        keys = contents.keys[self.places(list(dict.fromkeys(video_ids)))].tolist()
        if not keys:
            return

        def change(connection: sqlite3.Connection) -> None:
            remove_videos(connection, keys, contents.generation + 1)
            self._backend.settle(connection, everything=False)

        self._commit(change)

    def compact(self) -> None:
        """Give back the room of removed videos, join small files, and fit the codes to what is there now."""

        def change(connection: sqlite3.Connection) -> None:
            self._backend.settle(connection, everything=True)
            purge_removed(connection)

        self._commit(change)
        self._catalogue.vacuum()

    def back_up(self, target: str | Path) -> None:
        """Copy the last committed state to a new folder while searches and changes go on.

        Raises:
            DataError: there is something at `target` already, or the vectors are in a database, which has its own
                way to be backed up.
        """
        copy_index(self.path, self._catalogue, self._backend, Path(target))

    def discard(self) -> None:
        """Delete the vectors of this index for good, wherever they are; the folder is of no use afterwards."""
        self._backend.discard()

    def verify(self) -> list[str]:
        """Read everything in the index and compare checksums. Returns: a sentence for each damage."""
        return verify(self._catalogue, lambda _: self._backend)

    def search(
        self, query_vectors: ArrayLike, num_videos: int, restrict_to: Sequence[str] | None = None
    ) -> list[list[VideoMatch]]:
        """The best videos of each query; see `match` for the arguments and the order."""
        found = self.match(query_vectors, num_videos, restrict_to)
        ids, durations = self.video_ids, self.durations_seconds
        return [
            [
                VideoMatch(ids[place], float(score), clips, float(durations[place]))
                for place, score, clips in zip(*row, strict=True)
            ]
            for row in zip(found.places, found.scores, found.clip_scores, strict=True)
        ]

    def match(
        self, query_vectors: ArrayLike, num_videos: int, restrict_to: Sequence[str] | None = None
    ) -> VideoMatches:
        """The best videos of each query: score = max_j ⟨query, clip j⟩; ties by video id.

        Exact in a small index. In a large one (`IndexOptions.exact_videos`) codes choose which videos are looked
        at; the scores are exact all the same, and few of the best videos are missed.

        Args:
            query_vectors: (Q, D).
            num_videos: how many videos; all when the index holds fewer.
            restrict_to: search in these videos only; None: in all.
        Raises:
            DataError: `restrict_to` names a video that the index does not hold.
        """
        queries = checked_queries(query_vectors, self.width)
        chosen = None if restrict_to is None else np.unique(self.places(restrict_to))
        return self._state.match(queries, num_videos, chosen)

    def pair_scores(self, query_vectors: ArrayLike, video_ids: Sequence[str]) -> FloatArray:
        """Inner products of query i with the clips of video i: (N, D) and N ids → (N, S)."""
        return self._state.pair_scores(checked_queries(query_vectors, self.width), self.places(video_ids))

    def _commit(self, change: Callable[[sqlite3.Connection], None]) -> None:
        try:
            with self._catalogue.transaction(self._state.contents.generation) as connection:
                change(connection)
        finally:
            self._state = (
                self._read()
            )  # what is committed: the change, or after a failure the state before it
        # The change is committed; what cannot be swept now is swept by the next one.
        with suppress(OSError, sqlite3.Error), self._catalogue.idle() as idle:
            # When another writes, its new files would look like leftovers.
            if idle and self._catalogue.generation() == self.generation:
                self._backend.sweep(self._state.contents)

    def _read(self) -> IndexState:
        for attempt in range(READ_TRIES):
            contents = self._catalogue.read()
            try:
                return IndexState(self.path, contents, self._backend.open(contents))
            except ModelError:
                # A file is gone: perhaps another process has committed, and deleted it, between the two reads.
                if self._catalogue.generation() == contents.generation or attempt == READ_TRIES - 1:
                    raise
        raise AssertionError("unreachable")


def verify_index(path: str | Path, *, store: str | None = None) -> list[str]:
    """As `ClipIndex.verify`, also of an index that is too damaged to be opened.

    Raises:
        DataError: there is no index.
    """
    path = Path(path)
    return verify(_catalogue_of(path), lambda facts: _backend(path, facts, store))


def _catalogue_of(path: Path) -> Catalogue:
    """Raises DataError: there is no index."""
    if not os.path.lexists(path / CATALOGUE_FILE):
        # `os.path.exists` says no to names that no file system takes, where `Path.exists` raises.
        what = "this folder is not an index" if os.path.exists(path) else "there is no such folder"
        raise DataError(
            what,
            where=path,
            mend="name one that `dciml index` has made, or a home, as `dciml serve` makes of a folder of videos",
        )
    return Catalogue(path / CATALOGUE_FILE)


def _backend(path: Path, facts: IndexFacts, store: str | None) -> VectorBackend:
    if facts.options.store is None:
        if store is not None:
            raise DataError(
                "the vectors of this index are in its folder", where=path, mend=f"leave out --store {store}"
            )
        return EmbeddedVectors(path, facts)
    return MilvusVectors(facts, store)
