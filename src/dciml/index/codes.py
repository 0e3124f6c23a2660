"""4-bit codes of vectors, scanned in memory to find candidates (FAISS product quantisation, fast scan).

The vectors are centred, turned to their principal axes, cut to the first 4 · code_bytes of them, and rotated at
random, so that every pair of axes carries like energy; each pair is one of 16 centroids. Inner products with
the codes only choose which vectors are looked at exactly, see docs/decisions/0018-codes-for-large-indexes.md.

FAISS is loaded when codes are made or scanned, not before: training, evaluation and small indexes do without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.files import atomic_path
from dciml.index.references import check_inside

FloatArray = NDArray[np.float32]
CodeArray = NDArray[np.uint8]
TRAINING_VECTORS = 65_536
_AXES = 2  # axes per sub-quantiser
_CENTROIDS = 16  # FAISS's fast scan is for 4 bits
_MAX_FILE_BYTES = 1 << 16  # that an archive takes beside its arrays
BLOCK = 32  # vectors whose codes are interleaved; a part ends with a whole block


@dataclass(frozen=True)
class Coder:
    """How vectors become codes: `mean` (D,), `axes` (D, d), `centroids` (d / 2, 16, 2)."""

    mean: FloatArray
    axes: FloatArray
    centroids: FloatArray

    @classmethod
    def train(cls, sample: FloatArray, code_bytes: int, seed: int = 0) -> Coder:
        """Learn from a sample of vectors (n, D), n ≥ 16."""
        import faiss

        mean = sample.mean(axis=0)
        centred = sample - mean
        _, vectors = np.linalg.eigh(centred.T @ centred)
        num_axes = min(2 * _AXES * code_bytes, sample.shape[1]) // _AXES * _AXES
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(num_axes, num_axes)))
        axes = np.ascontiguousarray(vectors[:, ::-1][:, :num_axes] @ rotation, dtype=np.float32)
        quantizer = faiss.ProductQuantizer(num_axes, num_axes // _AXES, 4)
        quantizer.cp.min_points_per_centroid = 1  # no warnings about small samples
        quantizer.train(np.ascontiguousarray(centred @ axes))
        centroids = faiss.vector_to_array(quantizer.centroids)
        return cls(mean, axes, centroids.reshape(num_axes // _AXES, _CENTROIDS, _AXES).copy())

    @classmethod
    def read(cls, file: Path, width: int) -> Coder:
        """Read what `write` wrote, for vectors of some width. Raises ModelError."""
        check_inside(file)
        try:
            if file.stat().st_size > _MAX_FILE_BYTES + 4 * width * (width + _CENTROIDS * _AXES):
                raise ValueError("the file is too large")
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                coder = cls(arrays["mean"], arrays["axes"], arrays["centroids"])
            coder._check(width)
            return coder
        # A damaged archive ends in errors of many kinds: of the archive, of the array's head, of memory.
        except Exception as error:
            why = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
            what = f"is damaged ({why})" if file.exists() else "is missing"
            raise ModelError(f"{file}: the coder file {what}; compact or build the index again.") from error

    def _check(self, width: int) -> None:
        """Raises ValueError: shapes, types or numbers are not those of a coder of such vectors."""
        num_pairs, num_axes = len(self.centroids), self.axes.shape[-1]
        shapes = (self.mean.shape, self.axes.shape, self.centroids.shape)
        expected = ((width,), (width, num_axes), (num_pairs, _CENTROIDS, _AXES))
        if shapes != expected or num_axes != num_pairs * _AXES or not 1 <= num_axes <= width:
            raise ValueError(f"the arrays have the shapes {shapes}")
        for array in (self.mean, self.axes, self.centroids):
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError("a number is not usable")

    def write(self, file: Path) -> None:
        """Write atomically, as NumPy arrays."""
        with atomic_path(file) as temporary, temporary.open("wb") as handle:
            np.savez(handle, mean=self.mean, axes=self.axes, centroids=self.centroids)

    @property
    def code_bytes(self) -> int:
        """Bytes a code takes; an odd sub-quantiser fills up a byte."""
        return (len(self.centroids) + 1) // 2

    def encode(self, vectors: FloatArray) -> CodeArray:
        """(n, D) → (n', code_bytes) as the scan wants them, n' = n rounded up to a whole block of 32."""
        scan = self.empty_scan()
        scan.add(np.ascontiguousarray((vectors - self.mean) @ self.axes))
        return _memory_of(scan).copy().reshape(-1, self.code_bytes)

    def turn(self, queries: FloatArray) -> FloatArray:
        """Queries (Q, D) for `CodeScan.search`; the mean adds the same to every score and is left out."""
        return np.ascontiguousarray(queries @ self.axes)

    def empty_scan(self) -> Any:
        """FAISS's index for the scan, trained, without vectors."""
        import faiss

        num_pairs, _, width = self.centroids.shape
        scan = faiss.IndexPQFastScan(num_pairs * width, num_pairs, 4, faiss.METRIC_INNER_PRODUCT, BLOCK)
        faiss.copy_array_to_vector(self.centroids.reshape(-1), scan.pq.centroids)
        scan.is_trained = True
        return scan


class CodeScan:
    """Codes in memory, laid out for the scan.

    Args:
        parts: each as `Coder.encode` made it, `total` codes together; looked at one after the other.
    """

    def __init__(self, coder: Coder, parts: Iterable[CodeArray], total: int) -> None:
        self.coder = coder
        self._index = coder.empty_scan()
        self._index.codes.resize(total * coder.code_bytes)
        memory, start = _memory_of(self._index).reshape(-1, coder.code_bytes), 0
        for part in parts:
            memory[start : start + len(part)] = part
            start += len(part)
        self._index.ntotal = self._index.ntotal2 = total

    def __len__(self) -> int:
        """How many codes, those that only fill a block included."""
        return int(self._index.ntotal)

    def search(self, queries: FloatArray, num_vectors: int) -> NDArray[np.int64]:
        """The vectors whose codes fit best: (Q, D) → (Q, k) places, best first, k ≤ num_vectors."""
        _, found = self._index.search(self.coder.turn(queries), min(num_vectors, len(self)))
        places: NDArray[np.int64] = found
        return places


def _memory_of(scan: Any) -> CodeArray:
    """A view of the codes of a FAISS index."""
    import faiss

    memory: CodeArray = faiss.rev_swig_ptr(scan.codes.get(), scan.codes.size())
    return memory


PlaceArray = NDArray[np.int64]


def num_codes(num_videos: int, num_clips: int) -> int:
    """How many codes a segment of a number of videos has, the padding of its last block included."""
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
