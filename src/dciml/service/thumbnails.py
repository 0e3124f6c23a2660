"""Pictures of videos as JPEG, decoded in processes of their own and kept on disk within a bound."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path
from time import monotonic

from PIL import Image

from dciml.errors import DataError
from dciml.files import atomic_path
from dciml.media import frame_at
from dciml.processes import GIBIBYTE, Beat, OnCall

WIDTH = 320
MAX_HEIGHT = 640
STEP_SECONDS = 0.1
QUALITY = 82
DECODING_SECONDS = 60.0
"""A picture that takes longer is given up."""
MEMORY_BYTES = 2 * GIBIBYTE
"""Decoding that needs more is given up; pictures of 8192 by 4320 need less."""
KEPT_FAILURES, FAILURE_SECONDS = 256, 300.0


class ThumbnailCache:
    """JPEG files in a folder; when they grow over `max_bytes`, the longest unused go first.

    Thread-safe. A folder that cannot be written is no fault: pictures are then made each time. A file that gave none
    is not tried again for some minutes, unless it changes.

    Args:
        folder: made when there is something to keep.
        max_bytes: see above.
        workers: processes that decode, so that a file that breaks a decoder breaks one of these.
    """

    def __init__(self, folder: Path, max_bytes: int, workers: int = 2) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._decoders = OnCall(_picture_of, workers, DECODING_SECONDS, MEMORY_BYTES)
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._failures: dict[str, tuple[float, DataError]] = {}  # when it was, and what

    def close(self) -> None:
        """End the processes; no picture may be asked for any more."""
        self._decoders.close()

    def get(self, media: Path, seconds: float) -> bytes:
        """The picture that a file shows at a time, which is moved into the file's length.

        Raises:
            DataError: the file cannot be decoded.
        """
        status = media.stat()
        step = round(seconds / STEP_SECONDS)
        version = f"{media}\0{status.st_mtime_ns}\0{status.st_size}"
        name = f"{version}\0{step}\0{WIDTH}"
        file = self.folder / (hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest() + ".jpg")
        try:
            content = file.read_bytes()
            os.utime(file)
            return content
        except OSError:
            content = self._decoded(media, step * STEP_SECONDS, version)
        self._keep(file, content)
        return content

    def _decoded(self, media: Path, seconds: float, version: str) -> bytes:
        at, known = self._failures.get(version, (0.0, None))
        if known is not None and monotonic() - at < FAILURE_SECONDS:
            raise known
        try:
            return self._decoders.call((media, seconds))
        except DataError as error:
            with self._lock:
                if len(self._failures) >= KEPT_FAILURES:
                    self._failures.clear()
                self._failures[version] = (monotonic(), error)
            raise

    def _keep(self, file: Path, content: bytes) -> None:
        with self._lock:
            try:
                with atomic_path(file) as temporary:
                    temporary.write_bytes(content)
                if self._bytes is None:
                    self._bytes = sum(size for _, size, _ in self._files())
                else:
                    self._bytes += len(content)
                if self._bytes > self.max_bytes:
                    self._bytes = self._shrink()
            except OSError:
                return

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for file in self.folder.glob("*.jpg"):
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
        return found

    def _shrink(self) -> int:
        """Delete the longest unused until a tenth is free; returns the bytes that are left."""
        files = sorted(self._files(), key=lambda entry: entry[0])
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= 0.9 * self.max_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size
        return total


def picture_at(media: Path, seconds: float) -> bytes:
    """The picture at a time as JPEG, scaled to `WIDTH`. Raises DataError: the file cannot be decoded."""
    # A time past the end finds the last picture.
    picture = Image.fromarray(frame_at(media, max(seconds, 0.0), within=(WIDTH, MAX_HEIGHT)))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def _picture_of(item: tuple[Path, float], beat: Beat) -> bytes:
    del beat
    return picture_at(*item)
