"""A real server on a free port: slow clients, many clients, a change of the index under load, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.errors import ConfigError
from dciml.index import ClipIndex
from dciml.service.server import listen
from dciml.service.settings import Limits

SENTENCE = json.dumps({"sentence": "the picture is red", "k": 3})
JSON = {"Content-Type": "application/json"}


def test_clients_that_send_too_slowly_are_dropped(running: Callable[..., Any]) -> None:
    server = running(limits=Limits(header_seconds=0.4, receive_seconds=0.4))
    begin = time.monotonic()
    with server.connect() as silent, server.connect() as slow_head, server.connect() as slow_body:
        slow_head.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        head = f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(SENTENCE)}\r\n"
        slow_body.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n{")
        for _ in range(12):  # a byte now and then does not help
            time.sleep(0.05)
            try:
                slow_head.sendall(b"X")
            except OSError:
                break
        assert silent.recv(100) == b""
        assert b"408" in slow_body.recv(1000)
        with contextlib.suppress(ConnectionResetError):
            assert slow_head.recv(100) == b""
    assert time.monotonic() - begin < 20
    assert server.ask("GET", "/healthz")[0] == 200


def test_a_body_that_trickles_is_given_up(running: Callable[..., Any]) -> None:
    server = running(limits=Limits(receive_seconds=0.5))
    head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
    with server.connect() as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n")
        sent, answer = 0, b""
        while not answer and sent < 200:  # never half a second without a byte
            time.sleep(0.05)
            client.sendall(b" ")
            sent += 1
            client.setblocking(False)
            try:
                answer = client.recv(1000)
            except BlockingIOError:
                client.setblocking(True)
        assert b" 408 " in answer


def test_a_client_that_does_not_read_is_dropped_and_its_file_closed(
    own: Path, running: Callable[..., Any]
) -> None:
    with (own / "videos" / "v2.mp4").open("ab") as file:
        file.truncate(64 * 1024 * 1024)
    server = running(own, limits=Limits(send_seconds=0.3))
    before = open_media_files(own)
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /media/plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        end = time.monotonic() + 15
        while open_media_files(own) == before and time.monotonic() < end:
            time.sleep(0.01)
        while open_media_files(own) > before and time.monotonic() < end:
            time.sleep(0.05)
        assert open_media_files(own) == before


def test_an_answer_is_sent_without_waiting_for_its_head_to_be_confirmed() -> None:
    async def no_delay() -> int:
        option = asyncio.get_running_loop().create_future()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            option.set_result(
                writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            )
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(accepted, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return int(await option)

    # In a thread of its own: the pages' browser tests leave a loop that runs in the main one.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: asyncio.run(no_delay())).result()


def open_media_files(folder: Path) -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return sum(link.startswith(str(folder / "videos")) for link in links)


def test_players_that_leave_do_not_leak_files(own: Path, running: Callable[..., Any]) -> None:
    with (own / "videos" / "v2.mp4").open("ab") as file:
        file.truncate(16 * 1024 * 1024)
    server = running(own)
    for _ in range(10):
        with server.connect() as client:
            client.sendall(b"GET /media/plain HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 206")
    end = time.monotonic() + 15
    while open_media_files(own) and time.monotonic() < end:
        time.sleep(0.05)
    assert open_media_files(own) == 0


def test_garbage_is_refused_and_the_server_goes_on(running: Callable[..., Any]) -> None:
    server = running()
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ):  # fmt: skip
        with server.connect() as client:
            client.sendall(garbage)
            answer = client.recv(2000)
            assert answer[9:10] in (b"4", b"2", b""), answer
            assert b"Traceback" not in answer
    assert server.ask("GET", "/healthz")[0] == 200


def test_many_clients_at_once_get_the_same_answers_as_one(running: Callable[..., Any]) -> None:
    server = running()
    sentences = [f"the picture is {colour}" for colour in ("red", "green", "blue", "grey")]

    def hits(sentence: str) -> Any:
        status, content = server.ask("POST", "/api/search", json.dumps({"sentence": sentence}))
        assert status == 200, content
        return json.loads(content)["hits"]

    alone = {sentence: hits(sentence) for sentence in sentences}
    with ThreadPoolExecutor(8) as pool:
        asked = sentences * 6
        for sentence, found in zip(asked, pool.map(hits, asked), strict=True):
            for ours, theirs in zip(found, alone[sentence], strict=True):
                # Answers in a batch may differ in the last digits.
                digits = ("score", "start_seconds", "end_seconds")
                assert ours == theirs | {name: pytest.approx(theirs[name], abs=1e-4) for name in digits}


def test_searches_never_stop_the_event_loop(running: Callable[..., Any]) -> None:
    server = running(limits=Limits(search_threads=1))
    runtime = server.server.config.app.state.runtime  # type: ignore[union-attr]
    held, free = threading.Event(), threading.Event()
    runtime._search_pool.submit(lambda: (held.set(), free.wait(20)))
    assert held.wait(10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.ask, "POST", "/api/search", SENTENCE)
        assert server.ask("GET", "/healthz")[0] == 200
        assert server.ask("GET", "/media/plain")[0] == 200
        assert not waiting.done()
        free.set()
        assert waiting.result()[0] == 200


def test_a_change_of_the_index_drops_no_request(own: Path, running: Callable[..., Any]) -> None:
    server = running(own, poll_seconds=0.05)
    end, statuses = threading.Event(), []

    def ask() -> None:
        while not end.is_set():
            statuses.append(server.ask("POST", "/api/search", SENTENCE)[0])

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(ask)
        try:
            for video_id in ("plain", "grey", "second"):
                ClipIndex.open(own / "index").remove([video_id])
                time.sleep(0.3)
        finally:
            end.set()
    assert len(statuses) > 3
    assert set(statuses) == {200}
    assert json.loads(server.ask("GET", "/healthz")[1])["videos"] == 3


def test_running_requests_finish_before_the_server_ends(running: Callable[..., Any]) -> None:
    server = running(limits=Limits(search_threads=1))
    runtime = server.server.config.app.state.runtime  # type: ignore[union-attr]
    held, free = threading.Event(), threading.Event()
    runtime._search_pool.submit(lambda: (held.set(), free.wait(20)))
    assert held.wait(10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.ask, "POST", "/api/search", SENTENCE)
        while not runtime.searches.used:
            time.sleep(0.01)
        server.server.should_exit = True
        time.sleep(0.3)
        with pytest.raises(ConnectionError):
            server.ask("GET", "/healthz")
        free.set()
        assert waiting.result()[0] == 200


@pytest.mark.slow
def test_the_command_serves_adds_and_ends_on_sigterm(own: Path, ask_of: Callable[..., Any]) -> None:
    command = [sys.executable, "-m", "dciml", "serve", str(own / "index"), "--port", "0"]
    environment = os.environ | {"XDG_CACHE_HOME": str(own / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        assert "6 videos at http://127.0.0.1:" in greeting, greeting
        port = int(greeting.partition("127.0.0.1:")[2].partition("/")[0])
        assert ask_of(port, "POST", "/api/search", SENTENCE.encode(), JSON)[0] == 200
        content = (own / "videos" / "v1.mp4").read_bytes() + b"\0\0\0\x08free"
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="n.mp4"\r\n\r\n' + content
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert ask_of(port, "POST", "/api/videos", form + b"\r\n--x--\r\n", kind)[0] == 202
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in errors, errors
    assert not list((own / "index.added" / "incoming").iterdir())
    assert len(ClipIndex.open(own / "index")) in (6, 7)


def test_a_taken_port_is_a_clear_error() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="choose another one with --port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"):
        listen("203.0.113.1", 0)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, served: Path) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else found(name, *rest)
    )
    result = CliRunner().invoke(app, ["serve", str(served / "index")])
    assert isinstance(result.exception, ConfigError)
    assert "pip install 'dciml[serve]'" in str(result.exception)


def test_an_index_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", "0"])
    assert "not an index" in str(result.exception)


def test_a_moved_folder_still_plays(own: Path, tmp_path: Path, running: Callable[..., Any]) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(own, moved)
    server = running(moved)
    assert server.ask("GET", "/media/plain")[1] == (moved / "videos" / "v2.mp4").read_bytes()
