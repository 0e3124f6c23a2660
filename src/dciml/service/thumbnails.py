"""Pictures of videos as JPEG, kept on disk within a bound."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from pathlib import Path

from PIL import Image

from dciml.files import atomic_path
from dciml.media import frame_at, probe

WIDTH = 320
MAX_HEIGHT = 640
STEP_SECONDS = 0.1
QUALITY = 82


class ThumbnailCache:
    """JPEG files in a folder; when they grow over `max_bytes`, the longest unused go first.

    Thread-safe. A folder that cannot be written is no fault: pictures are then made each time.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None

    def get(self, media: Path, seconds: float) -> bytes:
        """The picture that a file shows at a time, which is moved into the file's length.

        Raises:
            DataError: the file cannot be decoded.
        """
        status = media.stat()
        step = round(seconds / STEP_SECONDS)
        name = f"{media}\0{status.st_mtime_ns}\0{status.st_size}\0{step}\0{WIDTH}"
        file = self.folder / (hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest() + ".jpg")
        try:
            content = file.read_bytes()
            os.utime(file)
            return content
        except OSError:
            content = picture_at(media, step * STEP_SECONDS)
        self._keep(file, content)
        return content

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
    info = probe(media)
    scale = min(WIDTH / info.width, MAX_HEIGHT / info.height)
    size = (max(2, round(info.width * scale)), max(2, round(info.height * scale)))
    # The last picture starts a little before the end; a time past it finds that picture.
    picture = Image.fromarray(frame_at(media, min(max(seconds, 0.0), info.duration_seconds), size))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
