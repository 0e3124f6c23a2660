"""Pictures for the page are decoded in processes of their own, within bounds; the server goes on whatever they meet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dciml.errors import DataError
from dciml.media import write_video
from dciml.service import thumbnails
from dciml.service.thumbnails import ThumbnailCache


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ThumbnailCache]:
    made = ThumbnailCache(tmp_path / "cache", 10**7, workers=1)
    yield made
    made.close()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "v.mp4"
    write_video(path, (np.full((48, 64, 3), level, dtype=np.uint8) for level in (0, 100, 200)), 1)
    return path


def brightness(content: bytes) -> float:
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (320, 240)
    return float(np.asarray(picture).mean())


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a video was opened in this process")


def test_no_video_is_opened_in_the_process_of_the_server(
    cache: ThumbnailCache, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "open", refuse)
    assert brightness(cache.get(video, 1.2)) == pytest.approx(100, abs=3)
    assert brightness(cache.get(video, 2.9)) == pytest.approx(200, abs=3)
    assert brightness(cache.get(video, 1e9)) == pytest.approx(200, abs=3)


def test_a_picture_that_grows_is_refused_and_the_next_is_made(
    cache: ThumbnailCache, video: Path, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.mkv"
    with av.open(str(bomb), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
        for index, size in enumerate([(64, 48), (64, 48), (8256, 4480), (64, 48)]):
            content = io.BytesIO()
            Image.new("RGB", size).save(content, "JPEG", quality=10)
            packet = av.Packet(content.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1)
            container.mux(packet)
    for _ in range(2):
        with pytest.raises(DataError, match="a picture in the middle of it is too large"):
            cache.get(bomb, 2.5)
    assert brightness(cache.get(video, 1.2)) == pytest.approx(100, abs=3)


def test_a_head_that_claims_millions_of_pictures_is_refused(
    cache: ThumbnailCache, video: Path, tmp_path: Path
) -> None:
    content = bytearray(video.read_bytes())
    for box, at in ((b"stsz", 12), (b"stts", 12), (b"stsc", 16)):
        begin = content.index(box) + at
        content[begin : begin + 4] = (31_000_000).to_bytes(4, "big")
    size = content.index(b"stsz") + 8
    content[size : size + 4] = (1).to_bytes(4, "big")  # all of one byte, so that no table is needed
    (tmp_path / "claim.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"it asks for too much memory|it claims to hold 31000000 pictures"):
        cache.get(tmp_path / "claim.mp4", 1.0)
    assert brightness(cache.get(video, 1.2)) == pytest.approx(100, abs=3)


def test_a_file_that_takes_too_long_is_given_up_and_not_tried_again(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "DECODING_SECONDS", 0.0)
    cache = ThumbnailCache(tmp_path / "cache", 10**7, workers=1)
    with pytest.raises(DataError, match="it took longer than 0 s"):
        cache.get(video, 0.0)
    monkeypatch.setattr(cache._decoders, "_seconds", 60.0)
    with pytest.raises(DataError, match="it took longer than 0 s"):
        cache.get(video, 1.0)
    video.write_bytes(video.read_bytes() + b"\0\0\0\10free")  # another file may be better
    assert brightness(cache.get(video, 1.2)) == pytest.approx(100, abs=3)
    cache.close()
