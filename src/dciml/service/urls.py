"""The addresses of media and thumbnails; ids may hold slashes and any character."""

from __future__ import annotations

from urllib.parse import quote


def media_url(video_id: str) -> str:
    """Where a video's file is played from.

    >>> media_url("a/b?c")
    '/media/a%2Fb%3Fc'
    """
    return f"/media/{_quoted(video_id)}"


def thumbnail_url(video_id: str, seconds: float) -> str:
    """Where a picture of a video is.

    >>> thumbnail_url("tür", 1.5)
    '/thumbnails/t%C3%BCr?t=1.5'
    """
    return f"/thumbnails/{_quoted(video_id)}?t={round(seconds, 2)}"


def _quoted(video_id: str) -> str:
    return quote(video_id, safe="", errors="replace")
