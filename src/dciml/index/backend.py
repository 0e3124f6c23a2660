"""What an index asks of the place where its vectors live: a folder of segments, or a vector database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dciml.index.catalogue import Contents

FloatArray = NDArray[np.float32]
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
