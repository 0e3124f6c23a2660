"""`GET /media/{id}`, the file of a video in ranges, and `GET /thumbnails/{id}?t=`, a picture of it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from dciml.errors import DataError
from dciml.service.errors import ServiceError, problem
from dciml.service.files import MEDIA_TYPES, OTHER_TYPE, find_media, media_type, open_media
from dciml.service.limits import Slots, client_of
from dciml.service.runtime import Runtime, runtime_of
from dciml.service.schemas import Problem

_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class ByteRange:
    """`start` to `end`, without `end`."""

    start: int
    end: int


class Unsatisfiable(ValueError):
    """The range lies wholly outside of the file."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range that a `Range` header asks for; None: send the whole file.

    A header that is not understood is ignored, as the standard asks; so is one with several ranges, which a
    server may ignore: no player needs them, and many or overlapping ones are an old way to exhaust a server.

    Raises:
        Unsatisfiable: nothing of the range is in the file.

    >>> parse_range("bytes=0-99", 1000), parse_range("bytes=-10", 1000), parse_range("bytes=990-", 1000)
    (ByteRange(start=0, end=100), ByteRange(start=990, end=1000), ByteRange(start=990, end=1000))
    >>> parse_range("bytes=0-1,2-3", 1000), parse_range("bytes=9-1", 1000), parse_range("lines=1-2", 1000)
    (None, None, None)
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        length = int(last)
        if length == 0 or size == 0:
            raise Unsatisfiable
        return ByteRange(max(size - length, 0), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, min(int(last) + 1, size) if last else size)


CHUNK = 256 * 1024
ANY_VIDEO: dict[str, dict[str, str]] = {kind: {} for kind in sorted({*MEDIA_TYPES.values(), OTHER_TYPE})}
router = APIRouter(tags=["media"])


@router.get(
    "/media/{video_id:path}",
    response_class=Response,
    responses={
        200: {"description": "The whole file.", "content": ANY_VIDEO},
        206: {"description": "The range that was asked for.", "content": ANY_VIDEO},
        304: {"description": "The client has it already."},
        403: {"model": Problem, "description": "The file does not lie where this server may play from."},
        404: {"model": Problem},
        416: {"model": Problem, "description": "Nothing of the range is in the file."},
    },
)
async def media(video_id: str, request: Request) -> Response:
    """The video file, or a range of it (`Range: bytes=…`, one range)."""
    runtime = runtime_of(request)
    path = await asyncio.to_thread(media_path_of, runtime, video_id)
    return send_file(request, path, path.name)


def send_file(request: Request, path: Path, name: str) -> Response:
    """A file, or the range of it that is asked for; `name` is what a browser saves it as. Raises ServiceError: 404."""
    runtime = runtime_of(request)
    descriptor, status = open_media(path)
    response: Response | None = None
    try:
        response = _respond(request, runtime, path, name, descriptor, status)
    finally:
        if not isinstance(response, FileSlice):
            os.close(descriptor)
    return response


class FileSlice(StreamingResponse):
    """A part of an open file, which is closed in the end, whatever happens."""

    def __init__(
        self, descriptor: int, part: ByteRange, slots: Slots, code: int, headers: dict[str, str]
    ) -> None:
        super().__init__(_pieces(descriptor, part), code, headers)
        self._descriptor, self._slots = descriptor, slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._slots.taken(client_of(scope)):
                await super().__call__(scope, receive, send)
        finally:
            os.close(self._descriptor)


def media_path_of(runtime: Runtime, video_id: str) -> Path:
    """The file of a video. Raises ServiceError: 404, unknown or without a file; as `find_media`."""
    media_path = runtime.corpus.now.video(video_id).media_path
    if media_path is None:
        raise ServiceError(404, "The catalogue knows no file of this video.")
    settings = runtime.settings
    return find_media(media_path, settings.played_roots, settings.allow_roots)


def _respond(
    request: Request, runtime: Runtime, path: Path, name: str, descriptor: int, status: os.stat_result
) -> Response:
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(name),
        "Content-Type": media_type(path),
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    try:
        wanted = _wanted(request.headers, etag, status)
    except Unsatisfiable:
        sentence = f"Nothing of this range is in the file, which has {status.st_size} bytes."
        return problem(416, sentence, {"Content-Range": f"bytes */{status.st_size}"})
    sent = wanted or ByteRange(0, status.st_size)
    headers["Content-Length"] = str(sent.end - sent.start)
    if wanted:
        headers["Content-Range"] = f"bytes {sent.start}-{sent.end - 1}/{status.st_size}"
    code = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=code, headers=headers)
    return FileSlice(descriptor, sent, runtime.streams, code, headers)


def _wanted(headers: Headers, etag: str, status: os.stat_result) -> ByteRange | None:
    condition = headers.get("if-range")
    if condition is not None and not _unchanged(condition.strip(), etag, status):
        return None
    ranges = headers.getlist("range")
    return parse_range(ranges[0], status.st_size) if len(ranges) == 1 else None


def _unchanged(condition: str, etag: str, status: os.stat_result) -> bool:
    if condition.startswith(('"', "W/")):
        return condition == etag
    try:
        return parsedate_to_datetime(condition).timestamp() == int(status.st_mtime)
    except (ValueError, TypeError, OverflowError):
        return False


def _matches(condition: str | None, etag: str) -> bool:
    if condition is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return "*" in tags or etag in tags


async def _pieces(descriptor: int, part: ByteRange) -> AsyncIterator[bytes]:
    position = part.start
    while position < part.end:
        piece = await asyncio.to_thread(os.pread, descriptor, min(CHUNK, part.end - position), position)
        if not piece:  # cut off since it was opened; the length was promised, so the connection ends
            return
        position += len(piece)
        yield piece


def disposition(name: str) -> str:
    """The `Content-Disposition` of a file; any name is safe in it.

    >>> disposition('a"b.mp4')
    "inline; filename*=UTF-8''a%22b.mp4"
    """
    return f"inline; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def attachment(name: str) -> str:
    """The same of a file that is to be kept instead of shown."""
    return disposition(name).replace("inline", "attachment", 1)


SECONDS = Query(
    allow_inf_nan=False,
    description="A time past either end gives the first or the last picture.",
    examples=[15.75],
)


@router.get(
    "/thumbnails/{video_id:path}",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {"image/jpeg": {}}},
        403: {"model": Problem, "description": "The file does not lie where this server may play from."},
        404: {"model": Problem},
        422: {"model": Problem},
    },
)
async def thumbnail(video_id: str, request: Request, t: Annotated[float, SECONDS] = 0.0) -> Response:
    """The picture that a video shows at `t` seconds, as JPEG."""
    runtime = runtime_of(request)

    def work() -> bytes:
        path = media_path_of(runtime, video_id)
        duration = runtime.corpus.now.duration_seconds(video_id)
        try:
            return runtime.thumbnails.get(path, min(max(t, 0.0), duration))
        except (DataError, OSError):
            raise ServiceError(404, "The file of this video gives no picture.") from None

    content = await runtime.picture(work)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})
