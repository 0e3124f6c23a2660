"""Media: ranges as RFC 9110 has them, and no file but those of the catalogue."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import ConfigError
from dciml.service.app import create_app
from dciml.service.live import videos_elsewhere
from dciml.service.media import Unsatisfiable, parse_range
from dciml.service.settings import ServiceSettings

PLAIN = "v2.mp4"


@pytest.fixture
def content(served: Path) -> bytes:
    return (served / "videos" / PLAIN).read_bytes()


def test_the_whole_file(client: TestClient, content: bytes) -> None:
    response = client.get("/media/plain")
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == f"inline; filename*=UTF-8''{PLAIN}"


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=-999999999", 0, None),
        ("bytes=5-999999999", 5, None),
        ("BYTES=1-2", 1, 3),
    ],
)
def test_a_range(client: TestClient, content: bytes, header: str, start: int, end: int | None) -> None:
    response = client.get("/media/plain", headers={"Range": header})
    wanted = content[start:end]
    assert (response.status_code, response.content) == (206, wanted)
    first = start % len(content) if start < 0 else start
    expected = f"bytes {first}-{first + len(wanted) - 1}/{len(content)}"
    assert response.headers["content-range"] == expected
    assert response.headers["content-length"] == str(len(wanted))


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0", "bytes=99999999-99999999"])
def test_a_range_outside_of_the_file(client: TestClient, content: bytes, header: str) -> None:
    response = client.get("/media/plain", headers={"Range": header})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(content)}"
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,3-4",
        "bytes=" + ",".join(f"{i}-" for i in range(2000)),
        "bytes=" + ",".join(["0-"] * 2000),
        "bytes=" + "0" * 5000 + "-",
        "bytes=9-1",
        "bytes=--1",
        "bytes=a-b",
        "bytes=1_0-2_0",
        "bytes=٣-٤",
        "bytes=-",
        "bytes=",
        "rows=0-1",
        "",
        "bytes=18446744073709551616-",
    ],
    ids=lambda header: header[:20],
)
def test_many_huge_overlapping_and_invalid_ranges_are_ignored(
    client: TestClient, content: bytes, header: str
) -> None:
    response = client.get("/media/plain", headers={"Range": header.encode()})
    assert (response.status_code, len(response.content)) == (200, len(content))


def test_two_range_headers_are_ignored(client: TestClient, content: bytes) -> None:
    response = client.get("/media/plain", headers=[("Range", "bytes=0-1"), ("Range", "bytes=2-3")])
    assert (response.status_code, response.content) == (200, content)


def test_conditions(client: TestClient, content: bytes) -> None:
    whole = client.get("/media/plain")
    etag, modified = whole.headers["etag"], whole.headers["last-modified"]
    some = {"Range": "bytes=0-9"}
    assert client.get("/media/plain", headers=some | {"If-Range": etag}).status_code == 206
    assert client.get("/media/plain", headers=some | {"If-Range": modified}).status_code == 206
    for old in ('"old"', f"W/{etag}", "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense", ""):
        response = client.get("/media/plain", headers=some | {"If-Range": old})
        assert (response.status_code, response.content) == (200, content), old
    for tag in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        assert client.get("/media/plain", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/media/plain", headers={"If-None-Match": '"x"'}).status_code == 200


def test_head_sends_no_content(client: TestClient, content: bytes) -> None:
    response = client.head("/media/plain", headers={"Range": "bytes=0-9"})
    assert (response.status_code, response.content) == (206, b"")
    assert client.head("/media/plain").headers["content-length"] == str(len(content))


NUMBERS = st.none() | st.integers(0, 4000)


@given(first=NUMBERS, last=NUMBERS, size=st.integers(0, 3000))
@settings(deadline=None, max_examples=60)
def test_a_parsed_range_is_inside_of_the_file(first: int | None, last: int | None, size: int) -> None:
    try:
        found = parse_range(f"bytes={'' if first is None else first}-{'' if last is None else last}", size)
    except Unsatisfiable:
        return
    assert found is None or 0 <= found.start < found.end <= size


TRAVERSALS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cetc%5cpasswd",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "plain/../../../etc/passwd",
    "plain%00.mp4",
    "%00",
    "file:///etc/passwd",
    "..%c0%af..%c0%afetc%c0%afpasswd",
    "plain%0d%0aSet-Cookie:%20x=y",
    quote("kitchen/monday/../monday", safe=""),
    "",
]


@pytest.mark.parametrize("path", TRAVERSALS)
@pytest.mark.parametrize("base", ["/media/", "/thumbnails/", "/static/", "/api/videos/", "/api/jobs/"])
def test_no_path_leads_to_another_file(client: TestClient, base: str, path: str) -> None:
    response = client.get(f"{base}{path}", follow_redirects=False)
    assert response.status_code in (400, 404), response.text
    assert b"root:" not in response.content
    assert "set-cookie" not in response.headers


def point_elsewhere(folder: Path, video_id: str, target: Path) -> None:
    """Replace a video's file by a link."""
    with closing(sqlite3.connect(folder / "index" / "catalogue.sqlite")) as connection:
        (path,) = connection.execute(
            "SELECT media_absolute FROM videos WHERE video_id = ?", (video_id,)
        ).fetchone()
    Path(path).unlink()
    Path(path).symlink_to(target)


def test_a_link_out_of_the_folder_is_refused(own: Path, client_of: Callable[..., TestClient]) -> None:
    secret = own / "secret.mp4"
    secret.write_bytes((own / "videos" / PLAIN).read_bytes())
    point_elsewhere(own, "plain", secret)
    point_elsewhere(own, "grey", Path("/etc/passwd"))
    point_elsewhere(own, "second", own / "videos" / "v5.mp4")
    client = client_of(own)
    for path in ("/media/plain", "/media/grey", "/thumbnails/plain?t=1", "/thumbnails/grey?t=1"):
        assert client.get(path).status_code == 404, path
    assert client.get("/media/second").status_code == 200
    allowed = client_of(own, allow_roots=(own,), read_only=True)
    assert allowed.get("/media/plain").status_code == 200
    assert allowed.get("/media/grey").status_code == 404


def test_a_pipe_in_place_of_a_file_does_not_hang_the_server(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    (own / "videos" / PLAIN).unlink()
    os.mkfifo(own / "videos" / PLAIN)
    client = client_of(own)
    assert client.get("/media/plain").status_code == 404
    assert client.get("/thumbnails/plain?t=0").status_code == 404


def test_names_cannot_break_headers(
    own: Path, client_of: Callable[..., TestClient], edited: Callable[..., Any]
) -> None:
    name = 'x"\r\nSet-Cookie: a=b; <script>ü.mp4'
    (own / "videos" / PLAIN).rename(own / "videos" / name)
    with edited(own / "index") as connection:
        connection.execute(
            "UPDATE videos SET media_relative = ?, media_absolute = ?, title = ? WHERE video_id = 'plain'",
            (f"../videos/{name}", str(own / "videos" / name), "<script>alert(1)</script>"),
        )
    client = client_of(own)
    response = client.get("/media/plain")
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    disposition = response.headers["content-disposition"]
    assert disposition == f"inline; filename*=UTF-8''{quote(name, safe='')}"
    video = client.get("/api/videos/plain")
    assert video.headers["content-type"] == "application/json"
    assert video.json()["title"] == "<script>alert(1)</script>"


def name_media(edited: Callable[..., Any], folder: Path, video_id: str, file: Path | str) -> None:
    """What an index that a stranger made might say."""
    with edited(folder / "index") as connection:
        connection.execute(
            "UPDATE videos SET media_relative = NULL, media_absolute = ? WHERE video_id = ?",
            (str(file), video_id),
        )


def test_an_index_cannot_name_any_file_of_the_machine(
    own: Path, tmp_path: Path, client_of: Callable[..., TestClient], edited: Callable[..., Any]
) -> None:
    private = tmp_path / "private" / "private.mp4"
    private.parent.mkdir()
    shutil.copy(own / "videos" / PLAIN, private)
    (own / "pack").symlink_to(private.parent)  # it came with the index
    (own / "passwd.mp4").symlink_to("/etc/passwd")
    os.mkfifo(own / "pipe.mp4")
    shutil.copy(own / "videos" / PLAIN, own / "page.html")
    named = {
        "plain": "/etc/passwd",
        "grey": private,
        "second": own / "pack" / "private.mp4",
        "third": own / "passwd.mp4",
        "kitchen/monday": own / "index" / "catalogue.sqlite",
        'a "b" <b>&ü': own / "page.html",
    }
    for video_id, file in named.items():
        name_media(edited, own, video_id, file)
    client = client_of(own)
    for video_id in named:
        for address in (f"/media/{quote(video_id, safe='')}", f"/thumbnails/{quote(video_id, safe='')}?t=1"):
            response = client.get(address)
            assert response.status_code in (403, 404), (video_id, response.status_code)
            assert response.headers["content-type"] == "application/problem+json"
            assert str(tmp_path) not in response.text
    for file in (own / "pipe.mp4", "/dev/zero", own / "videos", "a\0.mp4", "/proc/self/environ"):
        name_media(edited, own, "plain", file)
        assert client.get("/media/plain").status_code in (403, 404), file


def test_the_user_says_where_else_videos_may_lie(
    own: Path, tmp_path: Path, client_of: Callable[..., TestClient], edited: Callable[..., Any]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(own / "videos", elsewhere)
    for number, video_id in enumerate(("kitchen/monday", 'a "b" <b>&ü', "plain")):
        name_media(edited, own, video_id, elsewhere / f"v{number}.mp4")
    settings = ServiceSettings(own / "index", cache=own / "cache", poll_seconds=0)
    refused = client_of(own)
    answer = refused.get("/media/plain")
    assert answer.status_code == 403
    assert "--media-root" in answer.json()["detail"]
    told = videos_elsewhere(refused.app.state.runtime.corpus.now, settings)  # type: ignore[attr-defined]
    assert told is not None
    assert told.startswith("Of 6 videos looked at, the files of 3 ")
    assert told.endswith(f"--media-root {elsewhere}")
    played = client_of(own, media_roots=(elsewhere,), read_only=True)
    assert played.get("/media/plain").status_code == 200
    assert played.get("/thumbnails/plain?t=1").status_code == 200
    now = played.app.state.runtime.corpus.now  # type: ignore[attr-defined]
    assert videos_elsewhere(now, replace(settings, media_roots=(elsewhere,))) is None


def test_sentences_of_a_data_folder_elsewhere_are_not_told(
    own: Path, tmp_path: Path, client_of: Callable[..., TestClient], edited: Callable[..., Any]
) -> None:
    assert client_of(own, read_only=True).get("/api/examples").json()["sentences"]
    shutil.move(own / "data", tmp_path / "data")
    with edited(own / "index") as connection:
        store = str(tmp_path / "data" / "features")
        connection.execute("UPDATE stores SET relative = NULL, absolute = ?", (store,))
    assert client_of(own, read_only=True).get("/api/examples").json()["sentences"] == []
    named = client_of(own, features=tmp_path / "data" / "features", read_only=True)
    assert named.get("/api/examples").json()["sentences"]


@pytest.mark.parametrize(
    "name", ["index.added", "index.added/videos", "index.added/features", "index.added/incoming"]
)
def test_a_link_in_the_place_of_added_videos_is_refused(own: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "target").mkdir()
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).symlink_to(tmp_path / "target")
    settings = ServiceSettings(own / "index", cache=own / "cache", poll_seconds=0)
    with pytest.raises(ConfigError, match="is a link"):
        create_app(settings)
    assert not list((tmp_path / "target").iterdir())
