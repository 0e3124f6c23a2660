"""The index folder: one fused vector a clip in FAISS, searched exactly and grouped by video.

A change is committed in three steps: the vectors go to a new file `vectors-<generation>.faiss`; the
catalogue's transaction enters the videos and names that generation; the old file is deleted. Killed at any
point, the folder holds the last committed state, and what is left over is swept by the next change.
"""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.errors import DataError, ModelError
from dciml.index.catalogue import (
    Catalogue,
    Contents,
    IndexFacts,
    NewVideo,
    delete_videos,
    insert_videos,
    store_key,
)
from dciml.index.exact import best_places, pair_similarities, similarity_blocks
from dciml.index.references import FolderReference
from dciml.index.vectors import ClipVectors, FloatArray
from dciml.index.videos import CatalogueVideo, VideoDetails, VideoFilter

CATALOGUE_FILE = "catalogue.sqlite"
READ_TRIES = 5


@dataclass(frozen=True)
class VideoMatch:
    """A video found for a query. `score` is the maximum of `clip_scores` (S,), its clips' inner products."""

    video_id: str
    score: float
    clip_scores: FloatArray
    duration_seconds: float


@dataclass(frozen=True)
class VideoMatches:
    """The same for Q queries as arrays, K videos each, best first.

    `places` (Q, K) count into `ClipIndex.video_ids`; `scores` is (Q, K), `clip_scores` (Q, K, S).
    """

    places: NDArray[np.int64]
    scores: FloatArray
    clip_scores: FloatArray


class ClipIndex:
    """An index folder opened for search and change; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._catalogue = Catalogue(path / CATALOGUE_FILE)
        self._load()

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
        ClipVectors.empty(num_clips, width).write(path / _vectors_name(0))
        facts = IndexFacts(num_clips, width, fingerprint, FolderReference.to(model_folder, path))
        Catalogue(path / CATALOGUE_FILE).create(facts, FolderReference.to(store_path, path))
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> ClipIndex:
        """Open an index folder.

        Raises:
            DataError: there is no index.
            ModelError: it is damaged or of another format version.
        """
        path = Path(path)
        if not (path / CATALOGUE_FILE).is_file():
            what = "this folder is not an index" if path.exists() else "there is no such folder"
            raise DataError(what, where=path, mend="name a folder that `dciml index` has made")
        return cls(path)

    def __len__(self) -> int:
        """How many videos."""
        return len(self._video_ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._place_of

    @property
    def video_ids(self) -> tuple[str, ...]:
        """All ids, in the order in which they were added."""
        return self._video_ids

    @property
    def durations_seconds(self) -> NDArray[np.float64]:
        """(videos,), in the order of `video_ids`."""
        return self._durations_seconds

    @property
    def num_clips(self) -> int:
        """Clips a video (S)."""
        return self._contents.facts.num_clips

    @property
    def width(self) -> int:
        """Width of the vectors (D)."""
        return self._contents.facts.width

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that the index was built with."""
        return self._contents.facts.fingerprint

    def check_fingerprint(self, fingerprint: str) -> None:
        """Refuse a model that the index was not built with. Raises ModelError."""
        if fingerprint != self.fingerprint:
            raise ModelError(
                f"{self.path}: the index was built with another model (the one in "
                f"{self._contents.facts.model.absolute}, fingerprint {self.fingerprint[:12]}; this one has "
                f"{fingerprint[:12]}). To mend it: use the model that the index was built with, or build an "
                f"index with this one: `dciml index MODEL FEATURES --out FOLDER`."
            )

    def model_folder(self) -> Path:
        """The folder of the model. Raises ModelError when it has moved, naming the option to pass."""
        return self._contents.facts.model.resolve(self.path, what="model", option="--model")

    def store_path(self, video_id: str | None = None) -> Path:
        """The feature store of a video; without a video, the one that the index was created with.

        Raises:
            DataError: the index does not hold the video.
            ModelError: the store has moved; the message names the option to pass.
        """
        stores = self._contents.stores
        key = min(stores) if video_id is None else self._contents.videos[self.places([video_id])[0]].store_key
        return stores[key].resolve(self.path, what="feature store", option="--features")

    def video(self, video_id: str) -> CatalogueVideo:
        """What the catalogue knows of a video. Raises DataError for one that the index does not hold."""
        video = self._catalogue.video(self._contents.videos[self.places([video_id])[0]].key)
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
        return tuple(
            video_id
            for video_id in self._catalogue.select(wanted)
            if video_id in self and (named is None or video_id in named)
        )

    def places(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Where videos stand in `video_ids`. Raises DataError for one that the index does not hold."""
        for video_id in video_ids:
            if video_id not in self._place_of:
                near = difflib.get_close_matches(video_id, self._video_ids, n=1)
                hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
                raise DataError(
                    f"the index does not hold the video {video_id!r}",
                    where=self.path,
                    mend=f"{hint}add it with `dciml index-add`, or check the id",
                )
        return np.array([self._place_of[video_id] for video_id in video_ids], dtype=np.int64)

    def add(
        self,
        video_ids: Sequence[str],
        vectors: ArrayLike,
        durations_seconds: ArrayLike,
        store_path: Path | None = None,
        details: Sequence[VideoDetails] | None = None,
    ) -> None:
        """Add videos; committed on return, all or none. Each call writes all vectors, so add many at once.

        Args:
            vectors: (V, S, D), fused clip vectors.
            durations_seconds: (V,), positive.
            store_path: the feature store that holds them; None: the one that the index was created with.
            details: of each video, for the catalogue.
        Raises:
            DataError: an id comes twice or is in the index already, a vector or a duration is not usable, or
                another process changed the index.
        """
        array = np.ascontiguousarray(vectors, dtype=np.float32)
        durations = np.asarray(durations_seconds, dtype=np.float64)
        self._check_new(video_ids, array, durations)
        if not len(video_ids):
            return
        store = self._contents.stores[min(self._contents.stores)]
        if store_path is not None:
            store = FolderReference.to(store_path, self.path)

        told = [VideoDetails()] * len(video_ids) if details is None else details
        new = [NewVideo(*row) for row in zip(video_ids, durations.tolist(), told, strict=True)]

        def change(connection: sqlite3.Connection) -> None:
            keys = insert_videos(connection, new, store_key(connection, store), self.path)
            self._vectors.add(keys, array)

        self._commit(change)

    def remove(self, video_ids: Sequence[str]) -> None:
        """Remove videos; committed on return, all or none. Raises DataError for an unknown one."""
        keys = [self._contents.videos[place].key for place in self.places(list(dict.fromkeys(video_ids)))]
        if not keys:
            return

        def change(connection: sqlite3.Connection) -> None:
            delete_videos(connection, keys)
            self._vectors.remove(keys)

        self._commit(change)

    def search(
        self, query_vectors: ArrayLike, num_videos: int, restrict_to: Sequence[str] | None = None
    ) -> list[list[VideoMatch]]:
        """The best videos of each query, exactly; see `match` for the arguments and the order."""
        found = self.match(query_vectors, num_videos, restrict_to)
        return [
            [
                VideoMatch(self._video_ids[place], float(score), clips, float(self._durations_seconds[place]))
                for place, score, clips in zip(*row, strict=True)
            ]
            for row in zip(found.places, found.scores, found.clip_scores, strict=True)
        ]

    def match(
        self, query_vectors: ArrayLike, num_videos: int, restrict_to: Sequence[str] | None = None
    ) -> VideoMatches:
        """The best videos of each query: score = max_j ⟨query, clip j⟩, exactly; ties by video id.

        Args:
            query_vectors: (Q, D).
            num_videos: how many videos; all when the index holds fewer.
            restrict_to: search in these videos only; None: in all.
        Raises:
            DataError: `restrict_to` names a video that the index does not hold.
        """
        queries = self._checked_queries(query_vectors)
        chosen = np.arange(len(self)) if restrict_to is None else np.unique(self.places(restrict_to))
        vectors = self._vectors.array()
        if restrict_to is not None:
            vectors = vectors[chosen]
        k = min(num_videos, len(chosen))
        places = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        clip_scores = np.empty((len(queries), k, self.num_clips), dtype=np.float32)
        for block, similarities in similarity_blocks(queries, vectors):
            best = similarities.max(axis=2)
            top = best_places(best, self._tie_order[chosen], k)
            places[block], scores[block] = chosen[top], np.take_along_axis(best, top, axis=1)
            clip_scores[block] = np.take_along_axis(similarities, top[:, :, None], axis=1)
        return VideoMatches(places, scores, clip_scores)

    def pair_scores(self, query_vectors: ArrayLike, video_ids: Sequence[str]) -> FloatArray:
        """Inner products of query i with the clips of video i: (N, D) and N ids → (N, S)."""
        queries, places = self._checked_queries(query_vectors), self.places(video_ids)
        return pair_similarities(queries, self._vectors.array(), places)

    def _checked_queries(self, query_vectors: ArrayLike) -> FloatArray:
        queries = np.ascontiguousarray(query_vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise ValueError(
                f"query vectors must have the shape (queries, {self.width}), not {queries.shape}"
            )
        if not np.isfinite(queries).all():
            raise ValueError("a query vector is not finite")
        return queries

    def _check_new(
        self, video_ids: Sequence[str], vectors: FloatArray, durations: NDArray[np.float64]
    ) -> None:
        expected = (len(video_ids), self.num_clips, self.width)
        if vectors.shape != expected or durations.shape != expected[:1]:
            raise ValueError(
                f"vectors must have the shape {expected}, not {vectors.shape}, and a duration a video"
            )
        seen: set[str] = set()
        for video_id, video_vectors, duration in zip(video_ids, vectors, durations, strict=True):
            if video_id in self or video_id in seen:
                raise DataError(
                    f"the video {video_id!r} is in the index already",
                    where=self.path,
                    mend="leave it out, or take it out first with `dciml index-remove`",
                )
            if not np.isfinite(video_vectors).all() or not (np.isfinite(duration) and duration > 0):
                raise DataError(
                    f"the video {video_id!r} has a vector or a duration that is not usable",
                    where=self.path,
                    mend="check its features",
                )
            seen.add(video_id)

    def _commit(self, change: Callable[[sqlite3.Connection], None]) -> None:
        generation = self._contents.generation
        try:
            with self._catalogue.transaction(generation) as connection:
                change(connection)
                self._vectors.write(self.path / _vectors_name(generation + 1))
        finally:
            self._load()  # what is committed: the change, or after a failure the state before it
        self._sweep()

    def _sweep(self) -> None:
        current = _vectors_name(self._contents.generation)
        for file in self.path.glob("*vectors-*.faiss*"):
            if file.name != current:
                file.unlink(missing_ok=True)

    def _load(self) -> None:
        self._contents, self._vectors = self._read()
        videos = self._contents.videos
        fits = self._vectors.width == self.width and self._vectors.holds([video.key for video in videos])
        if not fits:
            raise ModelError(
                f"{self.path}: vectors and catalogue do not fit together; build the index again."
            )
        self._video_ids = tuple(video.video_id for video in videos)
        self._place_of = {video_id: place for place, video_id in enumerate(self._video_ids)}
        self._durations_seconds = np.array([video.duration_seconds for video in videos], dtype=np.float64)
        self._tie_order = np.empty(len(videos), dtype=np.int64)
        self._tie_order[np.argsort(np.array(self._video_ids, dtype=object))] = np.arange(len(videos))

    def _read(self) -> tuple[Contents, ClipVectors]:
        for attempt in range(READ_TRIES):
            contents = self._catalogue.read()
            file = self.path / _vectors_name(contents.generation)
            try:
                return contents, ClipVectors.read(file, contents.facts.num_clips)
            except ModelError:
                # Missing: perhaps another process has committed, and deleted it, between the two reads.
                if file.exists() or attempt == READ_TRIES - 1:
                    raise
        raise AssertionError("unreachable")


def _vectors_name(generation: int) -> str:
    return f"vectors-{generation}.faiss"
