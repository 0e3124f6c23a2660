"""A browser shows of odd files what `frame_at` and the rows see: at the same times, as long, and turned alike."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from PIL import Image

from dciml.media import frame_at, iterate_frames, probe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FPS, COUNT = 5, 20
SEEK = """async (at) => {
  const video = document.querySelector('video')
  const until = (name) => new Promise((done) => video.addEventListener(name, done, { once: true }))
  const waited = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds))
  if (video.readyState < 2) await until('loadeddata')
  const shown = new Promise((done) => video.requestVideoFrameCallback(done))
  for (let length = -1; length < Math.min(at, video.duration);) { // the stated length may be too short
    length = video.duration
    const sought = until('seeked')
    video.currentTime = at
    await sought
    const grown = until('durationchange')
    if (length < at && video.duration <= length) await Promise.race([grown, waited(1000)])
  }
  await Promise.race([shown, waited(2000)]) // no other picture is shown where it was the same before
  await waited(100)
  return [video.currentTime, video.duration, video.videoWidth, video.videoHeight]
}"""


def write(path: Path, codec: str, start_seconds: float = 0.0, sound_seconds: float = 0.0) -> None:
    """Pictures that are brighter one by one, and darker on the left and above."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "5", "crf": "10", "b": "2M"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("libopus", rate=48000) if sound_seconds else None
        for index in range(COUNT):
            picture = np.full((64, 96, 3), 30 + 8 * index, dtype=np.uint8)
            picture[:32, :48] = 10
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index + round(start_seconds * FPS), Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start in range(0, round(sound_seconds * 48000), 960) if sound else ():
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="flt", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(heard))
        if sound:
            container.mux(sound.encode(None))


def patched(path: Path, box: bytes, at: int, new: bytes) -> None:
    content = bytearray(path.read_bytes())
    begin = content.index(box) + at
    content[begin : begin + len(new)] = new
    path.write_bytes(content)


def make(folder: Path, name: str) -> Path:
    path = folder / name
    codec = "libvpx" if name.endswith("webm") else "libx264"
    late = 2.0 if name.startswith("late") else 0.0
    sound = {"sound": 9.0, "late": 6.0}.get(name.split(".")[0], 0.0)
    write(path, codec, late, sound)
    if name.startswith("short"):
        patched(path, b"mdhd", 20, struct.pack(">I", 3000))
    if name.startswith("mirrored"):
        patched(path, b"tkhd", 44, struct.pack(">6i", -(1 << 16), 0, 0, 0, 1 << 16, 0))
    return path


@pytest.mark.parametrize(
    "name", ["short.mp4", "mirrored.mp4", "sound.mp4", "sound.webm", "late.mp4", "late.webm", "plain.mkv"]
)
def test_a_browser_shows_the_same_pictures_at_the_same_times(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    path = make(tmp_path, name)
    (tmp_path / "page.html").write_text(f"<body style='margin:0'><video muted src='{name}'></video>")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    info, rows = probe(path), dict(iterate_frames(path, 2.0))
    for seconds in (0.5, 1.5, 2.5, 3.5, *((7.5,) if info.duration_seconds > 8 else ())):
        at, _, width, height = page.evaluate(SEEK, seconds)
        assert at == pytest.approx(seconds, abs=0.01)
        assert (width, height) == (info.width, info.height)
        seen = Image.open(io.BytesIO(page.locator("video").screenshot())).convert("RGB")
        shown = np.asarray(seen, dtype=np.float64)
        assert np.abs(shown - frame_at(path, seconds)).mean() < 6, seconds
        assert np.abs(shown - rows[seconds]).mean() < 6, seconds
    lasts = page.evaluate(SEEK, 1e6)[1]
    assert lasts == pytest.approx(info.duration_seconds, abs=0.25)
    page.close()
