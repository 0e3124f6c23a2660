"""Bounds on bodies, on slow clients, and on how much goes on at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dciml.service.errors import Busy, ServiceError, problem
from dciml.service.settings import MEBIBYTE, Limits

UPLOAD_PATH = "/api/videos"
CLOSE = {"Connection": "close"}
SLOWEST_BYTES_PER_SECOND = 16 * 1024  # of a body, after a first while


class Slots:
    """A number of places; whoever finds none is told to come again. For the event loop's thread only.

    >>> slots = Slots(1, "searches")
    >>> with slots.taken():
    ...     slots.used
    1
    """

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.what, self.used = limit, what, 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place. Raises Busy (503 with Retry-After) when there is none."""
        if self.used >= self.limit:
            raise Busy(self.what)
        self.used += 1
        try:
            yield
        finally:
            self.used -= 1


class BodyAndTime:
    """Refuses bodies over the limit, and gives up on clients that send or read too slowly; plain ASGI."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope)
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isascii() or not stated.isdigit() or int(stated[:20]) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        guarded = _Reader(receive, limit, self.limits.receive_seconds)
        await self.app(scope, guarded, _slow_readers_dropped(send, self.limits.send_seconds))

    def _limit(self, scope: Scope) -> int:
        is_upload = scope["path"] == UPLOAD_PATH and Headers(scope=scope).get(
            "content-type", ""
        ).lower().startswith("multipart/form-data")
        return self.limits.upload_bytes if is_upload else self.limits.body_bytes


class _Reader:
    """`receive` with a bound on the bytes in all, on the time between two pieces, and on how slow they are in all."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._seconds = receive, limit, seconds
        self._begin, self._got, self._done = monotonic(), 0, False

    async def __call__(self) -> Message:
        if self._done:  # only the end of the connection can come now; waiting for that is no fault
            return await self._receive()
        allowed = self._begin + self._seconds + self._got / SLOWEST_BYTES_PER_SECOND - monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(min(allowed, self._seconds), 0.0))
        except TimeoutError:
            self._done = True
            raise ServiceError(408, "The request came too slowly.", CLOSE) from None
        self._got += len(message.get("body", b""))
        self._done = not message.get("more_body", False)
        if self._got > self._limit:
            self._done = True
            raise ServiceError(413, _too_large_sentence(self._limit), CLOSE)
        return message


def _slow_readers_dropped(send: Send, seconds: float) -> Send:
    async def guarded(message: Message) -> None:
        try:
            await asyncio.wait_for(send(message), seconds)
        except TimeoutError:
            raise ClientTooSlow from None

    return guarded


class ClientTooSlow(OSError):
    """A client did not take its answer; starlette treats it as one that has gone."""


def _too_large(limit: int) -> ASGIApp:
    return problem(413, _too_large_sentence(limit), CLOSE)


def _too_large_sentence(limit: int) -> str:
    size = f"{limit // MEBIBYTE} MiB" if limit >= MEBIBYTE else f"{limit} bytes"
    return f"The request is larger than {size}, the most that this server takes."
