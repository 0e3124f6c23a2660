"""Connections that do not wait for ever for a request to be complete."""

from __future__ import annotations

import asyncio
import resource
from typing import Protocol

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from dciml.service.errors import MEDIA_TYPE, problem, problem_content
from dciml.service.limits import ABORT
from dciml.service.settings import ServiceSettings

SPARE_FILES = 128  # for the index, files that are sent, and logs
FLUSH_SECONDS = 5.0  # for what is still to be sent when a connection is closed


class Room:
    """Places for connections. Where there is none, the connection that has been idle longest gives way.

    So connections that are opened and left standing keep nobody out. For the event loop's thread only.

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
