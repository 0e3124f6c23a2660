"""Slow, idle and greedy clients hold nothing for ever; over real sockets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dciml.service.errors import Busy
from dciml.service.limits import Slots
from dciml.service.settings import Limits

FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="n.mp4"\r\n\r\n'
END_SECONDS = 20.0


def upload_head(size: int = 1_000_000, more: str = "") -> bytes:
    head = f"POST /api/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n{more}"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + FORM


def connect(server: Any, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20, source_address=(address, 0))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + END_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def trickle(client: socket.socket) -> bytes:
    """Send a little all the time, until there is an answer."""
    client.settimeout(0.02)
    end = time.monotonic() + END_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            return client.recv(2000)
        client.sendall(b"0" * 200)
    raise AssertionError("it may go on for ever")


@pytest.mark.parametrize(
    "limits",
    [
        Limits(receive_seconds=0.5, upload_bytes_per_second=1_000_000),
        Limits(receive_seconds=0.5, upload_bytes_per_second=1, upload_seconds=1.0),
    ],
    ids=["rate", "time"],
)
def test_an_upload_that_trickles_gives_its_place_back(
    own: Path, running: Callable[..., Any], limits: Limits
) -> None:
    server = running(own, limits=limits)
    with connect(server) as client:
        client.sendall(upload_head())
        assert b" 408 " in trickle(client)
    runtime = server.server.config.app.state.runtime
    wait_for(lambda: runtime.uploads.used == 0)


def test_one_client_does_not_take_all_places_for_uploads(own: Path, running: Callable[..., Any]) -> None:
    server = running(own, limits=Limits(running_uploads=4, uploads_per_client=2))
    runtime = server.server.config.app.state.runtime
    forged = "X-Forwarded-For: 10.9.8.7\r\n"
    with connect(server) as first, connect(server) as second, connect(server) as third:
        first.sendall(upload_head())
        second.sendall(upload_head())
        wait_for(lambda: runtime.uploads.used == 2)
        third.sendall(upload_head(more=forged))  # nobody said that this header is to be trusted
        assert b" 503 " in third.recv(2000)
        with connect(server, "127.0.0.2") as other:
            content = FORM + b"no video\r\n--x--\r\n"
            other.sendall(upload_head(len(content)) + content[len(FORM) :])
            assert b" 202 " in other.recv(2000)
    wait_for(lambda: runtime.uploads.used == 0)


def test_behind_a_trusted_proxy_its_header_tells_clients_apart(
    own: Path, running: Callable[..., Any]
) -> None:
    server = running(own, limits=Limits(uploads_per_client=1), trusted_proxies=("127.0.0.1",))
    runtime = server.server.config.app.state.runtime
    with connect(server) as first, connect(server) as again, connect(server) as other:
        first.sendall(upload_head(more="X-Forwarded-For: 10.0.0.1\r\n"))
        wait_for(lambda: runtime.uploads.used == 1)
        again.sendall(upload_head(more="X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n"))  # the first may be forged
        assert b" 503 " in again.recv(2000)
        other.sendall(upload_head(more="X-Forwarded-For: 10.0.0.2\r\n"))
        wait_for(lambda: runtime.uploads.used == 2)


@pytest.mark.parametrize(
    "limits", [Limits(connections=6), Limits(connections_per_client=6)], ids=["all", "client"]
)
def test_connections_that_stand_idle_give_way(running: Callable[..., Any], limits: Limits) -> None:
    server = running(limits=limits)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(20)]
        for client in idle[10:]:
            with contextlib.suppress(OSError):
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: lo")
        assert server.ask("GET", "/healthz")[0] == 200
        assert len(server.server.server_state.connections) <= 7
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(10) == b""


def test_a_player_that_reads_a_little_now_and_then_is_dropped(own: Path, running: Callable[..., Any]) -> None:
    with (own / "videos" / "v2.mp4").open("ab") as file:
        file.truncate(64 * 1024 * 1024)
    server = running(own, limits=Limits(send_seconds=1.0, send_bytes_per_second=10**9))
    runtime = server.server.config.app.state.runtime
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /media/plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: runtime.streams.used == 1)
        end = time.monotonic() + END_SECONDS
        while runtime.streams.used and time.monotonic() < end:
            with contextlib.suppress(ConnectionResetError):
                client.recv(65536)
            time.sleep(0.02)
        assert runtime.streams.used == 0
        wait_for(lambda: not server.server.server_state.connections)  # not even to be flushed


def test_places_are_counted_by_client_and_given_back() -> None:
    slots = Slots(3, "uploads", per_client=1)
    with slots.taken("a"):
        with pytest.raises(Busy), slots.taken("a"):
            pass
        with slots.taken("b"), slots.taken(""), pytest.raises(Busy), slots.taken("c"):
            pass
    with slots.taken("a"):
        assert slots.used == 1
