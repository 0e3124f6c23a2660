"""Segments: files of fused clip vectors that are written once, mapped into memory, and never changed.

A segment holds (V, S, D) numbers, float32 or float16, one video after another, and nothing else.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.files import atomic_path

FloatArray = NDArray[np.float32]


class Segment:
    """A segment opened for reading. It stays readable when another process deletes its file.

    Raises:
        ModelError: the file is missing, or of another size than the catalogue says.
    """

    def __init__(self, file: Path, shape: tuple[int, int, int], dtype: str) -> None:
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            with file.open("rb") as handle:
                found = os.fstat(handle.fileno()).st_size
                if found != expected:
                    raise ModelError(
                        f"{file}: the vectors file is damaged ({found} bytes, not {expected}); restore a backup, "
                        "or build the index again."
                    )
                self._map = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
        except FileNotFoundError as error:
            raise ModelError(
                f"{file}: the vectors file is missing; restore a backup, or build the index again."
            ) from error
        self.array: NDArray[np.generic] = np.frombuffer(self._map, dtype=dtype).reshape(shape)

    def videos(self, rows: NDArray[np.int64]) -> FloatArray:
        """Vectors of videos: (n,) rows → (n, S, D), a copy."""
        copied: FloatArray = self.array[rows].astype(np.float32, copy=False)
        return copied

    def clips(self, rows: NDArray[np.int64], clips: NDArray[np.int64]) -> FloatArray:
        """Vectors of single clips: (n,) and (n,) → (n, D), a copy."""
        # Without this each clip that is not cached reads 128 KB of its surroundings from the disk.
        self._map.madvise(mmap.MADV_RANDOM)
        copied: FloatArray = self.array[rows, clips].astype(np.float32, copy=False)
        # All else reads whole stretches, some of it straight from `array`.
        self._map.madvise(mmap.MADV_NORMAL)
        return copied

    def release(self) -> None:
        """Hand mapped pages back to the system, which still caches them."""
        self._map.madvise(mmap.MADV_DONTNEED)


def write_segment(file: Path, blocks: Iterable[FloatArray], dtype: str) -> list[int]:
    """Write blocks of videos (n, S, D) atomically. Returns: the CRC-32 of each video's bytes on disk."""
    checksums = []
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        for block in blocks:
            stored = np.ascontiguousarray(block, dtype=dtype)
            checksums += [zlib.crc32(video.data) for video in stored]
            handle.write(stored.data)
    return checksums


def sync_folder(folder: Path) -> None:
    """Force the names of new files to disk; a name is an entry of its folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
