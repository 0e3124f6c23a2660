"""Files of the catalogue, and no others: how they are opened, and the addresses under which they are served."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from dciml.features import VIDEO_SUFFIXES
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
OTHER_TYPE = "application/octet-stream"
ELSEWHERE = (
    "The file of this video does not lie where this server may play from. To mend it: whoever runs the server can "
    "name its folder with --media-root."
)
GONE = "The file of this video is not there any more, or may not be read."


def media_type(path: Path) -> str:
    """The type by the name; what is not known to be a video is not named as anything a browser would run."""
    return MEDIA_TYPES.get(path.suffix.lower(), OTHER_TYPE)


def find_media(media_path: str, played: Iterable[Path], allowed: Iterable[Path] = ()) -> Path:
    """The real path of a catalogued file.

    The catalogue may be anybody's, so the file must lie below one of `played` and have the name of a video. A link
    is followed only to a place in the folder that the catalogue names, or below one of `allowed`: whoever may write
    to a folder of videos must not be able to have other files of the machine served.

    Raises:
        ServiceError: 403, it does not lie where files may be played; 404, it is gone, is a link that leads elsewhere,
            or is no plain file with the name of a video.
    """
    catalogued = Path(media_path)
    try:
        real = catalogued.resolve()
        roots = [root.resolve() for root in played]
        if not any(real.is_relative_to(root) for root in roots) or not has_video_name(real):
            is_led_away = any(catalogued.is_relative_to(root) for root in roots)
            raise ServiceError(404, GONE) if is_led_away else ServiceError(403, ELSEWHERE)
        linked = [catalogued.parent.resolve(), *(root.resolve() for root in allowed)]
        if not any(real.is_relative_to(folder) for folder in linked) or not real.is_file():
            raise ServiceError(404, GONE)
    except (OSError, ValueError, RuntimeError):
        raise ServiceError(404, GONE) from None
    return real


def has_video_name(path: Path) -> bool:
    """Whether a file is called a video: no other is ever sent or decoded.

    >>> has_video_name(Path("a.MP4")), has_video_name(Path("/etc/passwd")), has_video_name(Path("a.mp4.html"))
    (True, False, False)
    """
    suffix = path.suffix.lower()
    return suffix in MEDIA_TYPES or suffix in VIDEO_SUFFIXES


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


def media_url(video_id: str) -> str:
    """Where a video's file is played from.

    >>> media_url("a/b?c")
    '/media/a%2Fb%3Fc'
    """
    return f"/media/{_quoted(video_id)}"


def copy_url(video_id: str) -> str:
    """Where the converted copy of a video's file is played from.

    >>> copy_url("a/b?c")
    '/copies/a%2Fb%3Fc'
    """
    return f"/copies/{_quoted(video_id)}"


def thumbnail_url(video_id: str, seconds: float) -> str:
    """Where a picture of a video is.

    >>> thumbnail_url("tür", 1.5)
    '/thumbnails/t%C3%BCr?t=1.5'
    """
    return f"/thumbnails/{_quoted(video_id)}?t={round(seconds, 2)}"


def clip_url(video_id: str, start_seconds: float, end_seconds: float) -> str:
    """Where a moment is as a file of its own.

    >>> clip_url("tür", 1.5, 4.0)
    '/clips/t%C3%BCr?start=1.5&end=4.0'
    """
    return f"/clips/{_quoted(video_id)}?start={round(start_seconds, 3)}&end={round(end_seconds, 3)}"


def _quoted(video_id: str) -> str:
    return quote(video_id, safe="", errors="replace")
