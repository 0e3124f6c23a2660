"""Converted copies: made once on demand in a process of their own, within bounds, and played by the rules of media."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient

from dciml.media import frame_at, probe
from dciml.service.settings import Limits
from dciml.video_cut import convert_video

WAIT_SECONDS = 90.0
KINDS = {
    "hevc in mkv": ("matroska", "libx265", "yuv420p", "libopus"),
    "xvid in avi": ("avi", "mpeg4", "yuv420p", "mp3"),
    "prores in mov": ("mov", "prores_ks", "yuv422p10le", "pcm_s16le"),
    "mpeg-2": ("mpegts", "mpeg2video", "yuv420p", "mp2"),
    "10 bit h264": ("mp4", "libx264", "yuv422p10le", None),
    "h264 in avi": ("avi", "libx264", "yuv420p", None),
}


def write(path: Path, kind: str, seconds: float = 3.0, size: tuple[int, int] = (160, 120)) -> None:
    """A video whose brightness says which second it is; and a tone."""
    form, codec, pixels, sound = KINDS[kind]
    (width, height), rate = size, 25
    with av.open(str(path), "w", format=form) as out:
        options = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {"bf": "0"}
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        heard: Any = None if sound is None else out.add_stream(sound, rate=48_000)
        for number in range(round(seconds * rate)):
            picture = np.full((height, width, 3), 40 + 60 * (number // rate % 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if heard is not None:
            times = np.arange(round(seconds * 48_000)) / 48_000
            wave = (8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)[None]
            fifo = av.AudioFifo()
            whole = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            whole.sample_rate, whole.pts = 48_000, 0
            fifo.write(whole)
            resampler = av.AudioResampler(
                heard.codec_context.format or "s16", "mono", 48_000, heard.codec_context.frame_size or 1024
            )
            for part in [*resampler.resample(fifo.read()), *resampler.resample(None)]:
                out.mux(heard.encode(part))
            out.mux(heard.encode(None))


def codecs_of(path: Path) -> tuple[str, str, str | None]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        sound = next((stream.codec_context.name for stream in container.streams.audio), None)
        return context.name, str(context.pix_fmt), sound


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_what_browsers_play_with_the_same_times(tmp_path: Path, kind: str) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy.mp4"
    write(source, kind)
    shares: list[float] = []
    convert_video(source, copy, within=(1920, 1080), on_progress=shares.append)
    assert codecs_of(copy)[:2] == ("h264", "yuv420p")
    assert codecs_of(copy)[2] in (None if KINDS[kind][3] is None else "aac", "mp3")
    assert probe(copy).duration_seconds == pytest.approx(3.0, abs=0.1)
    for second in range(3):
        brightness = float(frame_at(copy, second + 0.5).mean())
        assert brightness == pytest.approx(40 + 60 * second, abs=6)
    assert shares == sorted(shares)
    assert copy.read_bytes()[4:8] == b"ftyp"
    assert (
        0 < copy.read_bytes().index(b"moov") < copy.read_bytes().index(b"mdat")
    )  # it plays before it is all there


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    write(tmp_path / "source", "xvid in avi", seconds=0.4, size=(320, 180))
    convert_video(tmp_path / "source", tmp_path / "copy.mp4", within=(192, 108))
    info = probe(tmp_path / "copy.mp4")
    assert (info.width, info.height) == (192, 108)


@pytest.fixture
def odd(own: Path) -> Path:
    """The served folder with HEVC in Matroska in the place of the video `plain`."""
    write(own / "videos" / "v2.mp4", "hevc in mkv")
    return own


def wait_for(client: TestClient, video_id: str = "plain") -> dict[str, Any]:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        state = dict(client.get(f"/api/copies/{video_id}").json())
        if state["state"] not in ("queued", "running"):
            return state
        assert time.monotonic() < end, state
        time.sleep(0.05)


def parts_of(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if "dciml-part" in file.name]


def test_a_copy_is_made_once_kept_and_played_in_ranges(
    odd: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(odd)
    before = client.get("/api/copies/plain").json()
    assert (before["state"], before["copy_url"], before["pictures"]) == ("none", None, "HEVC (H.265)")
    assert before["form"] == "Matroska or WebM"
    assert before["type"].startswith("video/mp4; codecs=")
    assert client.get("/copies/plain").status_code == 404
    with ThreadPoolExecutor(6) as pool:
        asked = list(pool.map(lambda _: client.post("/api/copies/plain"), range(6)))
    assert {answer.status_code for answer in asked} <= {200, 202}
    state = wait_for(client)
    assert (state["state"], state["copy_url"], state["progress"]) == ("done", "/copies/plain", 1.0)
    (file,) = (odd / "index.added" / "copies").glob("*.mp4")
    assert len(client.app.state.runtime.copies._jobs.all()) == 1  # type: ignore[attr-defined]
    whole = client.get("/copies/plain")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert whole.content == file.read_bytes()
    part = client.get("/copies/plain", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, file.read_bytes()[100:200])
    assert client.head("/copies/plain").headers["content-length"] == str(len(whole.content))
    assert client.get("/copies/plain", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    made = file.stat().st_ino
    client.__exit__(None, None, None)
    again = client_of(odd)
    assert again.post("/api/copies/plain").status_code == 200
    assert next((odd / "index.added" / "copies").glob("*.mp4")).stat().st_ino == made
    # The copy of a file that has changed is not that of the one before.
    os.utime(odd / "videos" / "v2.mp4", (1e9, 1e9))
    assert again.get("/copies/plain").status_code == 404
    assert again.delete("/api/videos/plain").status_code == 204
    assert not list((odd / "index.added" / "copies").iterdir())


def test_a_server_that_adds_nothing_makes_copies_too(odd: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(odd, read_only=True)
    client.post("/api/copies/plain")
    assert wait_for(client)["state"] == "done"
    assert list((odd / "cache" / "copies").glob("*.mp4"))
    assert not (odd / "index.added").exists()


def test_copies_follow_the_rules_of_media(
    odd: Path, tmp_path: Path, client_of: Callable[..., TestClient], edited: Any
) -> None:
    secret = tmp_path / "elsewhere" / "secret.mp4"
    secret.parent.mkdir()
    write(secret, "h264 in avi", seconds=0.4)
    with edited(odd / "index") as connection:
        change = "UPDATE videos SET media_absolute = ?, media_relative = NULL WHERE video_id = 'second'"
        connection.execute(change, (str(secret),))
    client = client_of(odd)
    for method, path in (("GET", "/api/copies/"), ("POST", "/api/copies/"), ("GET", "/copies/")):
        assert client.request(method, f"{path}second").status_code == 403
        assert client.request(method, f"{path}none").status_code == 404
    (odd / "videos" / "v2.mp4").unlink()
    assert client.post("/api/copies/plain").status_code == 404
    foreign = client.post("/api/copies/third", headers={"Origin": "https://elsewhere"})
    assert foreign.status_code == 403
    locked = client_of(odd, token="sesame", read_only=True)
    for method, path in (
        ("GET", "/api/copies/third"),
        ("POST", "/api/copies/third"),
        ("GET", "/copies/third"),
    ):
        assert locked.request(method, path).status_code == 401


def test_a_file_that_cannot_be_read_says_so(odd: Path, client_of: Callable[..., TestClient]) -> None:
    (odd / "videos" / "v2.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0damaged" * 500)
    client = client_of(odd)
    state = client.get("/api/copies/plain").json()
    assert state["form"] is None
    assert state["message"].endswith(".")
    client.post("/api/copies/plain")
    state = wait_for(client)
    assert state["state"] == "failed"
    assert str(odd) not in state["message"]
    assert not parts_of(odd)


@pytest.mark.parametrize(
    ("limits", "words"), [(Limits(copy_bytes=300), "larger than"), (Limits(copy_seconds=0.05), "too long")]
)
def test_a_copy_that_is_too_large_or_takes_too_long_is_given_up(
    odd: Path, client_of: Callable[..., TestClient], limits: Limits, words: str
) -> None:
    client = client_of(odd, limits=limits)
    client.post("/api/copies/plain")
    state = wait_for(client)
    assert state["state"] == "failed"
    assert words in state["message"]
    assert not list((odd / "index.added" / "copies").iterdir())


def test_the_oldest_copies_give_way(odd: Path, client_of: Callable[..., TestClient]) -> None:
    write(odd / "videos" / "v5.mp4", "xvid in avi", seconds=1.0)
    client = client_of(odd, limits=Limits(copies_bytes=1000))
    for video_id in ("plain", "third"):
        client.post(f"/api/copies/{video_id}")
        assert wait_for(client, video_id)["state"] == "done"
    assert wait_for(client, "plain")["state"] == "none"
    assert len(list((odd / "index.added" / "copies").glob("*.mp4"))) == 1


def test_a_server_that_ends_leaves_no_half_copy(odd: Path, client_of: Callable[..., TestClient]) -> None:
    write(odd / "videos" / "v2.mp4", "xvid in avi", seconds=40.0)
    client = client_of(odd)
    client.post("/api/copies/plain")
    end = time.monotonic() + WAIT_SECONDS
    while client.get("/api/copies/plain").json()["progress"] == 0:
        assert time.monotonic() < end
    assert parts_of(odd)
    client.__exit__(None, None, None)
    assert not list((odd / "index.added" / "copies").iterdir())
