"""Hostile clients over real sockets: no mistake of the server, and it goes on."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HEAD = b"HTTP/1.1\r\nHost: localhost\r\n"
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="n.mp4"\r\n\r\n'
ODD = {
    "unknown method": b"FROB / " + HEAD + b"\r\n",
    "connect": b"CONNECT example.org:443 " + HEAD + b"\r\n",
    "trace": b"TRACE / " + HEAD + b"\r\n",
    "asterisk": b"OPTIONS * " + HEAD + b"\r\n",
    "absolute": b"GET http://localhost/healthz " + HEAD + b"\r\n",
    "websocket": b"GET / " + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "many headers": b"GET / " + HEAD + b"".join(b"X-%d: y\r\n" % i for i in range(900)) + b"\r\n",
    "two hosts": b"GET / " + HEAD + b"Host: elsewhere\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.0\r\n\r\n",
    "half a path": b"GET /media/%E6%98 " + HEAD + b"\r\n",
    "bad escape": b"GET /media/%zz%00%ff " + HEAD + b"\r\n",
    "long path": b"GET /media/" + b"a/" * 20_000 + b" " + HEAD + b"\r\n",
    "dots": b"GET /static/../../etc/passwd " + HEAD + b"\r\n",
    "nul in static": b"GET /static/%00 " + HEAD + b"\r\n",
    "long static": b"GET /static/" + b"a" * 5000 + b" " + HEAD + b"\r\n",
    "cookie": b"GET /api/jobs " + HEAD + b"Cookie: dciml_session=\xff\xfe; =;;=\r\n\r\n",
    "date": b"GET /media/plain " + HEAD + b"Range: bytes=0-1\r\nIf-Range: Mon, 99 Foo 99999 99:99:99\r\n\r\n",
    "negative length": b"POST /api/search " + HEAD + b"Content-Length: -1\r\n\r\n",
    "huge length": b"POST /api/search " + HEAD + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n",
    "bad chunk": b"POST /api/search " + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "unknown coding": b"POST /api/search " + HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "huge number": b"GET /api/videos?offset=" + b"9" * 5000 + b" " + HEAD + b"\r\n",
    "huge time": b"GET /thumbnails/plain?t=1e308 " + HEAD + b"\r\n",
    "huge fraction": b"GET /thumbnails/plain?t=" + b"1" * 5000 + b" " + HEAD + b"\r\n",
    "many values": b"GET /api/videos?" + b"sort=newest&" * 4000 + b" " + HEAD + b"\r\n",
}


def test_odd_requests_are_answered_or_refused(
    running: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    server = running()
    with caplog.at_level(logging.ERROR):
        for name, request in ODD.items():
            with server.connect() as client:
                client.sendall(request)
                answer = client.recv(4000)
            assert answer[9:10] in (b"2", b"4"), (name, answer)
            assert answer[9:10] == b"2" or b"application/problem+json" in answer, (name, answer)
            assert b"root:" not in answer
    assert server.ask("GET", "/healthz")[0] == 200
    assert not caplog.records, caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_clients_that_leave_in_the_middle_leave_nothing(
    own: Path,
    running: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = running(own)
    runtime = server.server.config.app.state.runtime
    kind = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000000\r\n\r\n"
    search = b'Content-Type: application/json\r\nContent-Length: 19\r\n\r\n{"sentence": "red"}'
    with caplog.at_level(logging.ERROR):
        for request in (
            b"POST /api/videos " + HEAD + kind + FORM + b"\0" * 2_000_000,
            b"POST /api/videos " + HEAD + kind,
            b"POST /api/search " + HEAD + search,
            b"POST /api/search " + HEAD + search[:-5],
            b"GET /media/plain " + HEAD + b"\r\n",
            b"GET /thumbnails/plain?t=2 " + HEAD + b"\r\n",
        ):
            for _ in range(3):
                with server.connect() as client:
                    client.sendall(request)
        end = time.monotonic() + 15
        places = (runtime.uploads, runtime.searches, runtime.streams, runtime.pictures)
        while (any(slots.used for slots in places) or server.server.server_state.connections) and (
            time.monotonic() < end
        ):
            time.sleep(0.02)
        assert [slots.used for slots in places] == [0, 0, 0, 0]
    assert not list((own / "index.added").rglob("*.mp4"))
    assert not caplog.records, caplog.text
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_adding_removing_and_searching_at_once(own: Path, running: Callable[..., Any]) -> None:
    server = running(own, poll_seconds=0.05)
    content = (own / "videos" / "v1.mp4").read_bytes()
    numbers = itertools.count()
    end, seen, lock = threading.Event(), set(), threading.Lock()

    def note(what: str, status: int) -> None:
        with lock:
            seen.add((what, status))

    def add() -> None:
        from http.client import HTTPConnection

        while not end.is_set():
            with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
                kind = {"Content-Type": "multipart/form-data; boundary=x"}
                own_mark = f"{next(numbers):08}".encode()  # the same content twice would be refused
                body = FORM + content + b"\0\0\0\x10free" + own_mark + b"\r\n--x--\r\n"
                connection.request("POST", "/api/videos", body, kind)
                note("add", connection.getresponse().status)
            time.sleep(0.2)

    def remove() -> None:
        while not end.is_set():
            ids = [video["video_id"] for video in json.loads(server.ask("GET", "/api/videos")[1])["videos"]]
            for video_id in [name for name in ids if name.startswith("n")]:
                note("remove", server.ask("DELETE", f"/api/videos/{video_id}")[0])

    def search() -> None:
        while not end.is_set():
            note("search", server.ask("POST", "/api/search", json.dumps({"sentence": "red", "k": 50}))[0])
            note("list", server.ask("GET", "/api/videos")[0])
            note("media", server.ask("GET", "/media/n")[0])

    with ThreadPoolExecutor(5) as pool:
        work = [pool.submit(task) for task in (add, add, remove, remove, search)]
        time.sleep(8)
        end.set()
        for one in work:
            one.result(60)
    assert seen <= {
        ("add", 202), ("add", 503), ("remove", 204), ("remove", 404), ("remove", 409), ("search", 200), ("list", 200),
        ("media", 200), ("media", 404),
    }  # fmt: skip
