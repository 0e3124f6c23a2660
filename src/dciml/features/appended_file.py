"""A file that only grows, and that can be cut back to what was last committed."""

from __future__ import annotations

import os
from pathlib import Path

from dciml.errors import DataError


class AppendedFile:
    """A file open for appending behind `size` bytes; whatever an interrupted writer left behind them is cut off.

    Nothing is kept in memory: what was written is in the file when `append` returns, and when it fails, no later
    call brings the missing part after it. `committed` is the size up to which it counts.

    Raises:
        DataError: the file is shorter than `size`.
    """

    def __init__(self, path: Path, size: int) -> None:
        path.touch()
        self._file = path.open("r+b", buffering=0)
        try:
            if os.fstat(self._file.fileno()).st_size < size:
                raise DataError(
                    "the file is shorter than its index says", where=path, mend="build the store again"
                )
            self.committed = size
            self.cut_back()
        except BaseException:
            self._file.close()
            raise

    def append(self, content: bytes | memoryview) -> None:
        """Write all of it at the end. Raises OSError, and then perhaps a part is there: `cut_back`."""
        rest = memoryview(content).cast("B")
        while len(rest):
            rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        """Force to disk what was appended."""
        os.fsync(self._file.fileno())

    def mark_committed(self) -> None:
        """Let what is there now count as committed; the caller has called `sync`."""
        self.committed = self._file.tell()

    def cut_back(self) -> None:
        """Drop what was appended since it was last marked as committed."""
        self._file.truncate(self.committed)
        self._file.seek(self.committed)

    def close(self) -> None:
        """Let go of the file, as it is."""
        self._file.close()
