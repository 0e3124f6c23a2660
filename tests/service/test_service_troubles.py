"""What the machine refuses: full, read-only and broken disks, a locked catalogue: a status and a sentence."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dciml.errors import DataError
from dciml.index import ClipIndex
from dciml.locks import LOCK_FILE
from dciml.service.adding import ADDED_FILE
from dciml.service.troubles import trouble_of


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full: writing past a size fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check_full(response: Any) -> None:
    assert response.status_code == 507, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "To mend it: " in response.json()["detail"]
    assert "/" not in response.json()["detail"]


def upload(client: TestClient, content: bytes) -> Any:
    return client.post("/api/videos", files={"file": ("x.mp4", content, "video/mp4")})


def test_an_upload_that_finds_no_room_is_a_507_wherever_room_is_missing(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own)
    with files_of_at_most(200_000):  # what is larger waits in the temporary folder
        check_full(upload(client, b"\0" * 3_000_000))
        check_full(upload(client, b"\0" * 500_000))  # kept in memory, and then in the folder of added videos
    files = {file.name for file in (own / "index.added").rglob("*") if file.is_file()}
    assert files <= {LOCK_FILE, ADDED_FILE}
    assert upload(client, b"\0" * 3_000_000).status_code == 202


def test_removing_a_video_without_room_is_a_507_and_takes_nothing_out(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own)
    with files_of_at_most(0):
        check_full(client.delete("/api/videos/plain"))
        assert client.get("/media/plain").status_code == 200
        assert client.post("/api/search", json={"sentence": "red"}).status_code == 200
    assert client.get("/healthz").json()["videos"] == 6
    assert client.delete("/api/videos/plain").status_code == 204
    assert len(ClipIndex.open(own / "index")) == 5


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("no file system can be mounted here: that takes the rights of root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_temporary_folder_is_a_507(
    own: Path, tiny_disk: Path, client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(own)
    monkeypatch.setattr(tempfile, "tempdir", str(tiny_disk))
    check_full(upload(client, b"\0" * 3_000_000))


def test_an_index_on_a_disk_that_becomes_read_only_says_so(
    own: Path, tiny_disk: Path, client_of: Callable[..., TestClient]
) -> None:
    shutil.copytree(own / "index", tiny_disk / "index")
    client = client_of(
        tiny_disk,
        model=own / "model",
        features=own / "data" / "features",
        cache=own / "cache",
        media_roots=(own,),
    )
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    removed, added = client.delete("/api/videos/plain"), upload(client, b"x")
    for response in (removed, added):
        assert response.status_code in (403, 409, 507), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert str(tiny_disk) not in response.text
    assert client.post("/api/search", json={"sentence": "red"}).status_code == 200


def caused(cause: Exception) -> DataError:
    try:
        raise DataError("it cannot be done", where="/secret/place") from cause
    except DataError as error:
        return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "x", "/secret"), 507),
        (OSError(errno.EDQUOT, "x"), 507),
        (caused(OSError(errno.ENOSPC, "x")), 507),
        (PermissionError(errno.EACCES, "x"), 403),
        (OSError(errno.EROFS, "x"), 403),
        (OSError(errno.EMFILE, "x"), 503),
        (FileNotFoundError(errno.ENOENT, "x"), 503),
        (MemoryError(), 503),
        (OSError(errno.EIO, "x"), 500),
        (OSError("without a number"), 500),
    ],
    ids=str,
)
def test_what_the_machine_refuses_has_a_status_and_a_sentence(error: Exception, status: int) -> None:
    trouble = trouble_of(error)
    assert trouble is not None
    assert trouble.status == status
    assert trouble.sentence.endswith(".")
    assert "secret" not in trouble.sentence


def test_what_sqlite_refuses_has_a_status(tmp_path: Path) -> None:
    def status_of(work: Callable[[], Any]) -> int:
        with pytest.raises(sqlite3.Error) as caught:
            work()
        trouble = trouble_of(caught.value)
        assert trouble is not None
        return trouble.status

    file = tmp_path / "a.sqlite"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN EXCLUSIVE")
    assert status_of(lambda: sqlite3.connect(file, timeout=0).execute("INSERT INTO t VALUES (1)")) == 503
    holder.close()
    read_only = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    assert status_of(lambda: read_only.execute("INSERT INTO t VALUES (1)")) == 403
    read_only.close()
    assert (
        status_of(lambda: sqlite3.connect(f"file:{tmp_path}/none?mode=rw", uri=True).execute("SELECT 1"))
        == 503
    )
    (tmp_path / "b").write_bytes(b"no database at all" * 100)
    assert status_of(lambda: sqlite3.connect(tmp_path / "b").execute("SELECT * FROM t")) == 500


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\n12345",
        "POST /api/search HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_a_request_with_two_ends_is_refused_and_its_connection_closed(
    running: Callable[..., Any], head: str
) -> None:
    server = running()
    with server.connect() as client:
        client.sendall(head.encode() + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = whole(client)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1") == 1
    top, _, content = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in top.lower()
    assert b"connection: close" in top.lower()
    assert json.loads(content)["status"] == 400
    assert server.ask("GET", "/healthz")[0] == 200


def whole(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    return answer
