"""Codes of several segments in memory, and the way back from a code to its video and clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dciml.index.codes import BLOCK, CodeArray, Coder, CodeScan

FloatArray = NDArray[np.float32]
PlaceArray = NDArray[np.int64]


def num_codes(num_videos: int, num_clips: int) -> int:
    """How many codes a segment of so many videos has, those that only fill its last block included."""
    return -(-num_videos * num_clips // BLOCK) * BLOCK


class SegmentScan:
    """The codes of some segments, joined, so that one scan serves all.

    Args:
        keys: of the segments; `num_videos` says how many videos each has, `parts` brings their codes in turn.
    """

    def __init__(
        self,
        coder: Coder,
        keys: Sequence[int],
        parts: Iterable[CodeArray],
        num_videos: Sequence[int],
        num_clips: int,
    ) -> None:
        self.keys, self._num_clips = tuple(keys), num_clips
        sizes = np.array([num_codes(videos, num_clips) for videos in num_videos])
        self._scan = CodeScan(coder, parts, int(sizes.sum()))
        self._code_starts = np.cumsum(sizes) - sizes
        rows = -(-sizes // num_clips)  # codes that only fill a block may look like one video more
        self._row_starts = np.cumsum(rows) - rows
        self._num_rows = int(rows.sum())

    def __len__(self) -> int:
        """How many codes."""
        return len(self._scan)

    def slots(self, places_of: dict[int, PlaceArray]) -> PlaceArray:
        """Where the videos of these segments stand now: (rows,), −1 for what was removed or only fills a block.

        Args:
            places_of: for each segment key the places (videos,) of its rows.
        """
        slots = np.full(self._num_rows, -1, dtype=np.int64)
        for key, start in zip(self.keys, self._row_starts, strict=True):
            slots[start : start + len(places_of[key])] = places_of[key]
        return slots

    def search(
        self, queries: FloatArray, num_vectors: int, slots: PlaceArray
    ) -> list[tuple[PlaceArray, PlaceArray]]:
        """For each query the places and the clips of the best codes, best first, without those that have no place."""
        found = []
        for codes in self._scan.search(queries, num_vectors):
            codes = codes[codes >= 0]
            part = np.searchsorted(self._code_starts, codes, side="right") - 1
            row, clip = np.divmod(codes - self._code_starts[part], self._num_clips)
            places = slots[self._row_starts[part] + row]
            kept = places >= 0
            found.append((places[kept], clip[kept]))
        return found
