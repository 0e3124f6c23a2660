"""What an index asks of the place where its vectors live, and exact search in vectors in memory (NumPy).

Exact search over fused clip vectors: matrix products, then the best clip of each video. NumPy only.

One matrix product beats a search for the k nearest vectors here: the clips of a video are alike, so that
100 videos may take thousands of vectors, and all clip scores of the found videos are needed anyway.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dciml.index.catalogue import Contents

BLOCK_SCORES = 1 << 25  # clip scores held at once, 128 MiB

FloatArray = NDArray[np.float32]


def clip_similarities(queries: FloatArray, vectors: FloatArray) -> FloatArray:
    """Inner products of queries (Q, D) and clips (V, S, D): (Q, V, S)."""
    num_videos, num_clips, width = vectors.shape
    return (queries @ vectors.reshape(-1, width).T).reshape(len(queries), num_videos, num_clips)


def similarities_in_blocks(
    queries: FloatArray,
    blocks: Iterable[tuple[NDArray[np.int64], FloatArray]],
    places: NDArray[np.int64] | None,
    shape: tuple[int, int],
) -> FloatArray:
    """The same for videos that come in blocks of places and vectors, put in order.

    Args:
        places: of the videos wanted, sorted; None: 0 to V − 1.
        shape: (V, S) of these. A video that no block brings has −∞.
    """
    found = np.full((len(queries), *shape), -np.inf, dtype=np.float32)
    for some, vectors in blocks:
        columns = some if places is None else np.searchsorted(places, some)
        found[:, columns] = clip_similarities(queries, vectors)
    return found


def best_places(scores: FloatArray, tie_order: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Columns of the k best scores a row, best first, ties by `tie_order`: (Q, V) → (Q, k)."""
    num_columns = scores.shape[1]
    places = np.empty((len(scores), k), dtype=np.int64)
    if k == 0:
        return places
    cut = num_columns - k
    least = np.partition(scores, cut, axis=1)[:, cut]
    for row, (values, limit) in enumerate(zip(scores, least, strict=True)):
        candidates = np.flatnonzero(values >= limit)  # more than k when scores tie at the limit
        order = np.lexsort((tie_order[candidates], -values[candidates]))
        places[row] = candidates[order[:k]]
    return places


PlaceArray = NDArray[np.int64]
VideoBlock = tuple[PlaceArray, FloatArray]
"""Places of n videos in the contents, and their clip vectors (n, S, D), any float type."""


class OpenVectors(Protocol):
    """The vectors of one committed state; they stay readable when another process changes the index."""

    def blocks(self, places: PlaceArray | None) -> Iterator[VideoBlock]:
        """The vectors of some videos (None: of all), block by block, in any order."""

    def similarities(self, queries: FloatArray, places: PlaceArray | None) -> FloatArray:
        """Inner products of queries (Q, D) with all clips of videos at sorted places (None: all): (Q, V, S)."""

    def candidates(
        self, queries: FloatArray, num_videos: int, allowed: NDArray[np.bool_] | None
    ) -> list[PlaceArray] | None:
        """For each query the places of more than `num_videos` videos that hold its best ones.

        Args:
            allowed: (videos,), which may be found; None: all.
        Returns: None when looking at every vector is the way.
        """


class VectorBackend(Protocol):
    """Keeps vectors. Changes happen inside the transaction of the catalogue that makes them count."""

    def open(self, contents: Contents) -> OpenVectors:
        """The vectors that belong to a committed state. Raises ModelError when they do not fit."""

    def add(self, connection: sqlite3.Connection, keys: Sequence[int], vectors: FloatArray) -> None:
        """Store vectors (V, S, D) of videos that have just been entered under `keys`."""

    def settle(self, connection: sqlite3.Connection, everything: bool) -> None:
        """Put what a change left in order; with `everything`, compact all."""

    def sweep(self, contents: Contents) -> None:
        """After a commit: delete what no committed state needs."""

    def verify(self, connection: sqlite3.Connection, contents: Contents) -> list[str]:
        """Read everything; one sentence for each thing that is damaged."""

    def copy(self, contents: Contents, target: Path) -> None:
        """Copy what the contents need into the folder `target`."""

    def discard(self) -> None:
        """Delete all vectors for good."""
