"""Bounds on bodies, on slow clients, and on how much goes on at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dciml.service.errors import Busy, ServiceError, problem
from dciml.service.settings import MEBIBYTE, Limits

ABORT = "abort"  # in the state of a connection: ends it at once
UPLOAD_PATH = "/api/videos"
CLOSE = {"Connection": "close"}
SLOWEST_BYTES_PER_SECOND = 16 * 1024  # of a body, after a first while


class Slots:
    """A number of places; whoever finds none is told to come again. For the event loop's thread only.

    Args:
        limit: places in all.
        what: they are for, in the plural.
        per_client: of them, for one client; None: as many as there are.

    >>> slots = Slots(1, "searches")
    >>> with slots.taken():
    ...     slots.used
    1
    """

    def __init__(self, limit: int, what: str, per_client: int | None = None) -> None:
        self.limit, self.what, self.used = limit, what, 0
        self._per_client = limit if per_client is None else per_client
        self._used_by: Counter[str] = Counter()

    @contextmanager
    def taken(self, client: str = "") -> Iterator[None]:
        """Hold a place. Raises Busy (503 with Retry-After) when there is none, or none for this client."""
        if self.used >= self.limit or (client and self._used_by[client] >= self._per_client):
            raise Busy(self.what)
        self.used += 1
        self._used_by[client] += 1
        try:
            yield
        finally:
            self.used -= 1
            self._used_by[client] -= 1
            if not self._used_by[client]:
                del self._used_by[client]


def client_of(scope: Scope) -> str:
    """Whom a request comes from: an address, or the part of one that a single client has many of.

    >>> client_of({"client": ("10.0.0.1", 5)}), client_of({"client": ("2001:db8::1:2", 5)}), client_of({})
    ('10.0.0.1', '2001:db8::/64', '')
    """
    address = (scope.get("client") or ("", 0))[0]
    try:
        is_six = ip_address(address).version == 6
    except ValueError:
        return str(address)
    return str(ip_network(f"{address.partition('%')[0]}/64", strict=False)) if is_six else str(address)


class BodyAndTime:
    """Refuses bodies over the limit, and gives up on clients that send or read too slowly; plain ASGI."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_upload = _is_upload(scope)
        limit = self.limits.upload_bytes if is_upload else self.limits.body_bytes
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isascii() or not stated.isdigit() or int(stated[:20]) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        sender = _Sender(send, self.limits)
        try:
            await self.app(scope, _Reader(receive, limit, self.limits, is_upload), sender)
        except Exception:
            if not sender.gave_up:
                raise
            if abort := scope.get("state", {}).get(ABORT):
                abort()


def _is_upload(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").lower()
    return bool(scope["path"] == UPLOAD_PATH and kind.startswith("multipart/form-data"))


class _Reader:
    """`receive` with a bound on the bytes in all, on the time between two pieces, and on how slow they are in all."""

    def __init__(self, receive: Receive, limit: int, limits: Limits, is_upload: bool) -> None:
        self._receive, self._limit, self._seconds = receive, limit, limits.receive_seconds
        self._floor = limits.upload_bytes_per_second if is_upload else SLOWEST_BYTES_PER_SECOND
        self._most_seconds = limits.upload_seconds
        self._begin, self._got, self._done = monotonic(), 0, False

    async def __call__(self) -> Message:
        if self._done:  # only the end of the connection can come now; waiting for that is no fault
            return await self._receive()
        in_all = min(self._seconds + self._got / self._floor, self._most_seconds)
        allowed = self._begin + in_all - monotonic()
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


class _Sender:
    """`send` with a bound on the time for a piece, and on how slowly the whole is taken; waiting alone counts."""

    def __init__(self, send: Send, limits: Limits) -> None:
        self._send, self._seconds, self._floor = send, limits.send_seconds, limits.send_bytes_per_second
        self._waited, self._sent, self.gave_up = 0.0, 0, False

    async def __call__(self, message: Message) -> None:
        begin, allowed = monotonic(), self._seconds + self._sent / self._floor - self._waited
        try:
            await asyncio.wait_for(self._send(message), max(min(allowed, self._seconds), 0.0))
        except TimeoutError:
            self.gave_up = True
            raise ClientTooSlow from None
        self._waited += monotonic() - begin
        self._sent += len(message.get("body", b""))


class ClientTooSlow(OSError):
    """A client did not take its answer; starlette treats it as one that has gone."""


def _too_large(limit: int) -> ASGIApp:
    return problem(413, _too_large_sentence(limit), CLOSE)


def _too_large_sentence(limit: int) -> str:
    size = f"{limit // MEBIBYTE} MiB" if limit >= MEBIBYTE else f"{limit} bytes"
    return f"The request is larger than {size}, the most that this server takes."
