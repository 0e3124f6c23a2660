"""Connections that do not wait for ever for a request to be complete."""

from __future__ import annotations

import asyncio

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from dciml.service.errors import MEDIA_TYPE, problem, problem_content


def protocol_with_timeout(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which has no bound of its own on how slowly the head of a request may come.

    Args:
        seconds: from the connection, or from the first byte of a further request, to the end of the request's head.
    """

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
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
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

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
