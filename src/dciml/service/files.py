"""Opening the files of the catalogue, and no others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dciml.service.errors import ServiceError

MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
    ".avi": "video/x-msvideo",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".ts": "video/mp2t",
    ".3gp": "video/3gpp",
}
GONE = "The file of this video is not there any more, or may not be read."


def media_type(path: Path) -> str:
    """The type by the name; what is not known to be a video is not named as anything a browser would run."""
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def find_media(media_path: str, roots: Iterable[Path]) -> Path:
    """The real path of a catalogued file.

    A link is followed only to a place in the folder that the catalogue names, or below one of `roots`: whoever may
    write to a folder of videos must not be able to have other files of the machine served.

    Raises:
        ServiceError: 404, the file is gone, leads elsewhere, or is no plain file.
    """
    try:
        catalogued = Path(media_path)
        real = catalogued.resolve(strict=True)
        allowed = [catalogued.parent.resolve(), *(root.resolve() for root in roots)]
        if not any(real.is_relative_to(folder) for folder in allowed) or not real.is_file():
            raise ServiceError(404, GONE)
    except (OSError, ValueError, RuntimeError):
        raise ServiceError(404, GONE) from None
    return real


def open_media(path: Path) -> tuple[int, os.stat_result]:
    """A file descriptor and what it points to; never a link, a pipe or a device.

    Raises:
        ServiceError: 404.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise ServiceError(404, GONE) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ServiceError(404, GONE)
    return descriptor, status
