"""The vectors of an index: an exact FAISS index whose ids say which video and clip a vector belongs to.

The vector of clip j of the video with key k has the id k · S + j.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.files import atomic_path

FloatArray = NDArray[np.float32]


class ClipVectors:
    """Fused clip vectors of videos, S each of width D, in memory; a file is read and written whole."""

    def __init__(self, index: Any, num_clips: int) -> None:
        self._index, self._num_clips = index, num_clips

    @classmethod
    def empty(cls, num_clips: int, width: int) -> ClipVectors:
        """Without videos."""
        return cls(faiss.IndexIDMap2(faiss.IndexFlatIP(width)), num_clips)

    @classmethod
    def read(cls, file: Path, num_clips: int) -> ClipVectors:
        """Read a file that `write` made. Raises ModelError when it is missing or damaged."""
        try:
            return cls(faiss.read_index(str(file)), num_clips)
        except RuntimeError as error:
            what = "cannot be read" if file.exists() else "is missing"
            raise ModelError(f"{file}: the vectors file {what}; build the index again.") from error

    def write(self, file: Path) -> None:
        """Write atomically; on return the file is on disk under its name."""
        with atomic_path(file) as temporary:
            faiss.write_index(self._index, str(temporary))
        folder = os.open(file.parent, os.O_RDONLY)  # the new name is an entry of the folder
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def add(self, keys: Sequence[int], vectors: FloatArray) -> None:
        """Add videos at the end: V keys and (V, S, D)."""
        self._index.add_with_ids(vectors.reshape(-1, self.width), self._ids(keys))

    def remove(self, keys: Sequence[int]) -> None:
        """Take videos out; the others keep their order."""
        self._index.remove_ids(self._ids(keys))

    @property
    def width(self) -> int:
        """Width of the vectors (D)."""
        return int(self._index.d)

    def holds(self, keys: Sequence[int]) -> bool:
        """Are these videos all there is, in this order?"""
        return np.array_equal(faiss.vector_to_array(self._index.id_map), self._ids(keys))

    def array(self) -> FloatArray:
        """(V, S, D): a view of FAISS's own memory, valid until the next change."""
        num_vectors = int(self._index.ntotal)
        shape = (num_vectors // self._num_clips, self._num_clips, self.width)
        if num_vectors == 0:
            return np.empty(shape, dtype=np.float32)
        flat: Any = faiss.downcast_index(self._index.index)
        rows: FloatArray = faiss.rev_swig_ptr(flat.get_xb(), num_vectors * self.width)
        return rows.reshape(shape)

    def _ids(self, keys: Sequence[int]) -> NDArray[np.int64]:
        clips = np.arange(self._num_clips, dtype=np.int64)
        return (np.asarray(keys, dtype=np.int64)[:, None] * self._num_clips + clips).reshape(-1)
