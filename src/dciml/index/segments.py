"""Segments: files of fused clip vectors that are written once, mapped into memory, and never changed.

A segment holds (V, S, D) numbers, float32 or float16, one video after another, and nothing else.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.files import atomic_path
from dciml.index.inside import check_inside

FloatArray = NDArray[np.float32]


LARGEST = 65_504.0  # of a vector's numbers, in size: that of float16, so that inner products stay finite
# Without its sign a number is the larger, the larger its bits are as a whole number; infinity and NaN are the largest.
_BITS = {"float32": (np.uint32, 0x7FFF_FFFF), "float16": (np.uint16, 0x7FFF)}
_CHECK_NUMBERS = 1 << 20


class Segment:
    """A segment opened for reading. It stays readable when another process deletes its file.

    Raises:
        ModelError: the file is missing, a link out of the index, or of another size than the catalogue says.
    """

    def __init__(self, file: Path, shape: tuple[int, int, int], dtype: str) -> None:
        self._file, self.is_checked = file, False
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        check_inside(file)
        try:
            with file.open("rb") as handle:
                found = os.fstat(handle.fileno()).st_size
                if found != expected or not found:
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

    def check(self) -> None:
        """Read the whole segment once, and refuse it when a number is NaN or out of range.

        Raises:
            ModelError: there is such a number.
        """
        flat = self.array.reshape(-1)
        for start in range(0, 0 if self.is_checked else len(flat), _CHECK_NUMBERS):
            self._check_part(flat[start : start + _CHECK_NUMBERS])
        self.is_checked = True

    def videos(self, rows: NDArray[np.int64]) -> FloatArray:
        """Vectors of videos: (n,) rows → (n, S, D), a copy. Raises ModelError: a number is NaN or out of range."""
        return self._checked_copy(self.array[rows])

    def clips(self, rows: NDArray[np.int64], clips: NDArray[np.int64]) -> FloatArray:
        """Vectors of single clips: (n,) and (n,) → (n, D), a copy. Raises ModelError as `videos`."""
        # Without this each clip that is not cached reads 128 KB of its surroundings from the disk.
        self._map.madvise(mmap.MADV_RANDOM)
        copied = self._checked_copy(self.array[rows, clips])
        # All else reads whole stretches, some of it straight from `array`.
        self._map.madvise(mmap.MADV_NORMAL)
        return copied

    def _checked_copy(self, part: NDArray[np.generic]) -> FloatArray:
        if not self.is_checked:
            self._check_part(part)
        copied: FloatArray = part.astype(np.float32, copy=False)
        return copied

    def _check_part(self, part: NDArray[np.generic]) -> None:
        if not in_range(part):
            raise ModelError(
                f"{self._file}: the vectors file holds a number that is NaN or out of range; `dciml index-verify` "
                "names the videos; restore a backup, or build the index again."
            )

    def release(self) -> None:
        """Hand mapped pages back to the system, which still caches them."""
        self._map.madvise(mmap.MADV_DONTNEED)


def in_range(numbers: NDArray[np.generic]) -> bool:
    """Are all of these float32 or float16 finite and at most `LARGEST` in size? One pass over their bits."""
    unsigned, mask = _BITS[numbers.dtype.name]
    limit = int(np.array(LARGEST, dtype=numbers.dtype).view(unsigned))
    return not numbers.size or int((numbers.view(unsigned) & unsigned(mask)).max()) <= limit


def write_segment(file: Path, blocks: Iterable[FloatArray], dtype: str) -> list[int]:
    """Write blocks of videos (n, S, D) atomically. Returns: the CRC-32 of each video's bytes on disk."""
    checksums = []
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        for block in blocks:
            stored = np.ascontiguousarray(block, dtype=dtype)
            checksums += [zlib.crc32(video.data) for video in stored]
            handle.write(stored.data)
    return checksums
