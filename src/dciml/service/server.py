"""Runs the app in uvicorn until it is asked to stop."""

from __future__ import annotations

import socket
import sys
import webbrowser
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp

from dciml.errors import ConfigError
from dciml.service.app import create_app
from dciml.service.limits import Room, protocol_with_timeout
from dciml.service.live import videos_elsewhere
from dciml.service.settings import ServiceSettings

BACKLOG = 512


class Server(uvicorn.Server):
    """Says where it listens once it does, and opens the page when asked to."""

    def __init__(self, config: uvicorn.Config, address: str, greeting: str, open_page: bool) -> None:
        super().__init__(config)
        self._address, self._greeting, self._open_page = address, greeting, open_page

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if self.started:
            print(self._greeting, flush=True)
            if self._open_page:
                webbrowser.open(self._address)


def run_server(settings: ServiceSettings, port: int, *, open_page: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; running requests finish first, jobs are ended.

    Raises:
        ConfigError: the address cannot be listened on.
        ModelError, DataError: the index cannot be served.
    """
    with listen(settings.host, port) as listener:
        make_server(settings, listener.getsockname()[1], open_page=open_page).run(sockets=[listener])


def make_server(settings: ServiceSettings, port: int, *, open_page: bool = False) -> Server:
    """A server that is ready to run on a socket; `port` is the socket's.

    Raises:
        ModelError, DataError: the index cannot be served.
    """
    app = create_app(settings)
    address = page_address(settings, port)
    # A log is read by more people than a terminal, so the token is shown in a terminal only.
    shown = address if sys.stdout.isatty() else address.partition("?")[0]
    videos = len(app.state.runtime.corpus.now.video_ids)
    greeting = f"{settings.index}: {videos} videos at {shown} (Ctrl+C ends)"
    if settings.home is not None:
        read = f"{videos} searchable at once, others" if videos else "searchable one by one"
        named = ", ".join(map(str, settings.home.folders))
        greeting = f"{named}: {read} as they are read, at {shown} (Ctrl+C ends)"
    if not settings.is_writable and not settings.read_only:
        why = (
            "The index cannot be written"
            if settings.cannot_be_written
            else "Others can reach this server and there is no token"
        )
        greeting += f"\n{why}: videos cannot be added or removed."
    if elsewhere := videos_elsewhere(app.state.runtime.corpus.now, settings):
        greeting += f"\n{elsewhere}"
    return Server(web_config(app, settings), address, greeting, open_page)


def web_config(app: ASGIApp, settings: ServiceSettings) -> uvicorn.Config:
    """How uvicorn runs an app: with bounds on slow clients and on connections, and without a log of requests."""
    return uvicorn.Config(
        app,
        http=protocol_with_timeout(settings.limits.header_seconds, Room.of(settings)),
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=BACKLOG,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=round(settings.limits.shutdown_seconds),
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigError: the port is taken, or there is no such address here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves TCP_NODELAY off: each answer's body then waits 40 ms for
    # the client to confirm its head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}). "
            "To mend it: end what listens there, or choose another one with --port or --host."
        ) from None
    return listener


def page_address(settings: ServiceSettings, port: int) -> str:
    """Where a browser on this machine finds the page; with the token, if there is one, so that it can log in."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    token = f"?token={quote(settings.token, safe='')}" if settings.token else ""
    return f"http://{host}:{port}/{token}"
