"""Bounds on bodies, on slow clients, on connections, and on how much goes on at once."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from time import monotonic
from typing import Protocol

import h11
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from dciml.service.errors import MEDIA_TYPE, Busy, ServiceError, problem, problem_content
from dciml.service.settings import MEBIBYTE, Limits, ServiceSettings

ABORT = "abort"  # in the state of a connection: ends it at once
UPLOAD_PATH = "/api/videos"
CLOSE = {"Connection": "close"}
SLOWEST_BYTES_PER_SECOND = 16 * 1024  # of a body, after a first while


class Slots:
    """A limited number of places; raises Busy when full. For the event loop's thread only.

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

    def free(self, client: str = "") -> int:
        """How many more places a client could have now."""
        return max(0, min(self.limit - self.used, self._per_client - self.used_by(client)))

    def used_by(self, client: str) -> int:
        """How many places a client has."""
        return self._used_by.get(client, 0)

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


SPARE_FILES = 128  # for the index, files that are sent, and logs
FLUSH_SECONDS = 5.0  # for what is still to be sent when a connection is closed


class Room:
    """Places for connections. Where there is none, the connection that has been idle longest gives way.

    So connections that are opened and left idle do not block others. For the event loop's thread only.

    Args:
        most, most_per_client: connections, in all and from one address.
        exempt: addresses that many clients share, such as a proxy's.
    """

    def __init__(self, most: int, most_per_client: int, exempt: frozenset[str] = frozenset()) -> None:
        self._most, self._most_per_client, self._exempt = most, most_per_client, exempt
        self._inside: dict[TimedConnection, str] = {}

    @classmethod
    def of(cls, settings: ServiceSettings) -> Room:
        """As settings say, and no more than the process may have open files for, two for each."""
        limits, (may_open, _) = settings.limits, resource.getrlimit(resource.RLIMIT_NOFILE)
        most = limits.connections
        if may_open != resource.RLIM_INFINITY:
            most = min(most, max((may_open - SPARE_FILES) // 2, 16))
        return cls(most, limits.connections_per_client, frozenset(settings.trusted_proxies))

    def enter(self, connection: TimedConnection, client: str) -> bool:
        """Take a place. Returns: whether there was one."""
        self._inside[connection] = client
        own = [other for other, address in self._inside.items() if address == client]
        is_over = len(own) > self._most_per_client and client not in self._exempt
        if not is_over and len(self._inside) <= self._most:
            return True
        idle = next((other for other in (own if is_over else self._inside) if other.is_idle), connection)
        self.leave(idle)
        if idle is connection:
            return False
        idle.abort()
        return True

    def leave(self, connection: TimedConnection) -> None:
        """Give a place back; it may have been given back before."""
        self._inside.pop(connection, None)


class TimedConnection(Protocol):
    """What `Room` asks of a connection."""

    @property
    def is_idle(self) -> bool:
        """Is no request of it being answered?"""
        ...

    def abort(self) -> None:
        """End it at once."""
        ...


def protocol_with_timeout(seconds: float, room: Room) -> type[H11Protocol]:
    """uvicorn's protocol, which has no bound of its own on how slowly the head of a request may come.

    Args:
        seconds: from the connection, or from the first byte of a further request, to the end of the request's head.
        room: which connections have their places in.
    """

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # What the app may call on a client that does not read: closing alone would wait for it to do so.
            self.app_state = {**self.app_state, ABORT: transport.abort}
            if room.enter(self, self.client[0] if self.client else ""):
                self._watch()
            else:
                transport.abort()

        @property
        def is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def abort(self) -> None:
            self.transport.abort()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._abort_soon()

        def _abort_soon(self) -> None:
            self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            room.leave(self)
            self._unset_timer()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """As uvicorn, but in the form of all other errors."""
            content = problem_content(400, "This is not a request that can be understood.")
            head = [
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", str(len(content)).encode()),
                (b"connection", b"close"),
            ]
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                for event in (
                    h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
                    h11.Data(data=content),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._unset_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._give_up)

        def _unset_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            if self.is_idle:
                self.transport.close()
                self._abort_soon()

    return TimedProtocol


class ClearFraming:
    """Refuses requests whose end two servers on the way could see in different places; plain ASGI.

    Such a request is how another one is smuggled past a proxy, so the connection is closed behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_ambiguous(scope):
            detail = "The request says in two ways where its body ends."
            await problem(400, detail, {"Connection": "close"})(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_ambiguous(scope: Scope) -> bool:
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" not in names:
        return names.count(b"content-length") > 1
    return b"content-length" in names or scope["http_version"] == "1.0"
