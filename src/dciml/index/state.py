"""One committed state of an index, opened for search; it never changes. And what an index takes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.errors import DataError
from dciml.folders import how_to_add
from dciml.index.backend import BLOCK_SCORES, FloatArray, OpenVectors, PlaceArray, best_places
from dciml.index.catalogue import Contents, IndexFacts
from dciml.index.segments import LARGEST
from dciml.names import KnownNames


def checked_queries(query_vectors: ArrayLike, width: int) -> FloatArray:
    """Query vectors as (Q, width). Raises ValueError for another shape, or a number that is not finite."""
    queries = np.ascontiguousarray(query_vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(f"query vectors must have the shape (queries, {width}), not {queries.shape}")
    if not np.isfinite(queries).all():
        raise ValueError("a query vector is not finite")
    return queries


def check_new(
    video_ids: Sequence[str],
    vectors: FloatArray,
    durations_seconds: NDArray[np.float64],
    held: set[str],
    path: Path,
    facts: IndexFacts,
) -> None:
    """Refuse videos that an index cannot take.

    Args:
        held: ids that the index holds and keeps. `path` is named in errors.
    Raises:
        DataError: an id comes twice or is held; a vector or a duration is not usable.
        ValueError: an array has another shape.
    """
    expected = (len(video_ids), facts.num_clips, facts.width)
    if vectors.shape != expected or durations_seconds.shape != expected[:1]:
        raise ValueError(
            f"vectors must have the shape {expected}, not {vectors.shape}, and a duration a video"
        )
    seen = set(held)
    for video_id, video_vectors, duration in zip(video_ids, vectors, durations_seconds, strict=True):
        if video_id in seen:
            raise DataError(
                f"the video {video_id!r} is in the index already",
                where=path,
                mend="leave it out, replace it (`dciml index-add --replace`), or take it out first",
            )
        usable = (np.abs(video_vectors) <= LARGEST).all()
        if not usable or not (np.isfinite(duration) and duration > 0):
            raise DataError(
                f"the video {video_id!r} has a vector or a duration that is not usable",
                where=path,
                mend="check its features",
            )
        seen.add(video_id)


BLOCK_PAIRS = 1024


@dataclass(frozen=True)
class VideoMatches:
    """The best videos of Q queries as arrays, K videos each, best first.

    `places` (Q, K) count into `ClipIndex.video_ids`; `scores` is (Q, K), `clip_scores` (Q, K, S).
    """

    places: PlaceArray
    scores: FloatArray
    clip_scores: FloatArray


class IndexState:
    """Contents of the catalogue and the vectors that belong to them; `path` is named in errors."""

    def __init__(self, path: Path, contents: Contents, vectors: OpenVectors) -> None:
        self.path, self.contents, self._vectors = path, contents, vectors
        self.place_of = {video_id: place for place, video_id in enumerate(contents.video_ids)}
        self._names = KnownNames(self.place_of)

    @cached_property
    def _tie_order(self) -> PlaceArray:
        ids = self.contents.video_ids
        order = np.empty(len(ids), dtype=np.int64)
        order[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        return order

    def places(self, video_ids: Sequence[str]) -> PlaceArray:
        """Where videos stand. Raises DataError for one that the index does not hold."""
        places = np.empty(len(video_ids), dtype=np.int64)
        for row, video_id in enumerate(video_ids):
            known = self._names.find(video_id)
            if known is None:
                known_ids = self.contents.video_ids
                near = [each for each in known_ids if video_id in (PurePath(each).name, PurePath(each).stem)]
                near = near or difflib.get_close_matches(video_id, known_ids, n=1)
                hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
                raise DataError(
                    f"the index does not hold the video {video_id!r}",
                    where=self.path,
                    mend=f"{hint}{how_to_add(self.path)}, or check the id",
                )
            places[row] = self.place_of[known]
        return places

    def match(self, queries: FloatArray, num_videos: int, chosen: PlaceArray | None) -> VideoMatches:
        """The best videos of each query (Q, D); see `ClipIndex.match`. `chosen` is sorted, without repeats."""
        candidates = self._vectors.candidates(queries, num_videos, self._mask(chosen))
        total = len(self.contents.video_ids)
        if candidates is None:
            size = max(
                1, BLOCK_SCORES // max(1, self._num_clips * (total if chosen is None else len(chosen)))
            )
            parts = [
                self._match_exactly(queries[start : start + size], num_videos, chosen)
                for start in range(0, len(queries), size)
            ]
        else:
            parts = [
                self._match_exactly(query[None], num_videos, found)
                for query, found in zip(queries, candidates, strict=True)
            ]
        if not parts:
            return self._match_exactly(queries, num_videos, chosen)
        return VideoMatches(
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.clip_scores for part in parts]),
        )

    def pair_scores(self, queries: FloatArray, places: PlaceArray) -> FloatArray:
        """Inner products of query i with the clips of the video at `places[i]`: (N, D) → (N, S)."""
        scores = np.full((len(queries), self._num_clips), -np.inf, dtype=np.float32)
        for start in range(0, len(queries), BLOCK_PAIRS):
            part = slice(start, start + BLOCK_PAIRS)
            distinct, pairs = np.unique(places[part], return_inverse=True)
            for found, vectors in self._vectors.blocks(distinct):
                rows = np.searchsorted(distinct, found)
                row_of = np.full(len(distinct), -1)
                row_of[rows] = np.arange(len(rows))
                here = np.flatnonzero(row_of[pairs] >= 0)
                products = np.matmul(vectors[row_of[pairs[here]]], queries[part][here, :, None])
                scores[start + here] = products[..., 0]
        return scores

    def _match_exactly(self, queries: FloatArray, num_videos: int, chosen: PlaceArray | None) -> VideoMatches:
        """Compare with all vectors of the chosen videos (None: of all)."""
        total = len(self.contents.video_ids) if chosen is None else len(chosen)
        similarities = self._vectors.similarities(queries, chosen)
        best = similarities.max(axis=2)
        everyone = np.arange(total) if chosen is None else chosen
        top = best_places(best, self._tie_order[everyone], min(num_videos, total))
        return VideoMatches(
            everyone[top],
            np.take_along_axis(best, top, axis=1),
            np.take_along_axis(similarities, top[:, :, None], axis=1),
        )

    def _mask(self, chosen: PlaceArray | None) -> NDArray[np.bool_] | None:
        if chosen is None:
            return None
        mask = np.zeros(len(self.contents.video_ids), dtype=bool)
        mask[chosen] = True
        return mask

    @property
    def _num_clips(self) -> int:
        return self.contents.facts.num_clips
