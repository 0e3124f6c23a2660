"""Which stream of a file is the video, and what is refused because of its size."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from dciml import video_streams, video_track
from dciml.errors import DataError
from dciml.media import frame_at, iterate_frames, probe

Track = tuple[tuple[int, int], int, bool]
"""Size, number of pictures, whether it is flagged as default."""


def write_tracks(path: Path, *tracks: Track, codec: str = "mpeg4") -> Path:
    with av.open(str(path), "w") as container:
        streams = []
        for (width, height), _, is_default in tracks:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default if is_default else Disposition(0)
            streams.append(stream)
        for index in range(max(count for _, count, _ in tracks)):
            for stream, ((width, height), count, _) in zip(streams, tracks, strict=True):
                if index < count:
                    picture = np.full((height, width, 3), 100, dtype=np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = index, Fraction(1, 5)
                    container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("tracks", "width"),
    [
        ([((64, 48), 9, False), ((32, 48), 5, True)], 32),
        ([((64, 48), 5, False), ((32, 48), 9, False)], 32),
        ([((32, 48), 9, False), ((64, 48), 9, False)], 64),
        ([((64, 48), 9, True), ((32, 48), 9, True)], 64),
        ([((64, 64), 1, True), ((32, 48), 9, False)], 32),
        ([((64, 64), 1, False), ((32, 48), 9, True)], 32),
    ],
    ids=["default", "most pictures", "largest", "largest default", "poster flagged", "poster first"],
)
def test_the_right_stream_is_the_video(tmp_path: Path, suffix: str, tracks: list[Track], width: int) -> None:
    if suffix == ".mp4" and not any(is_default for _, _, is_default in tracks):
        suffix = ".ts"  # an MP4 flags a stream by itself
    codec = "mpeg2video" if suffix == ".ts" else "mpeg4"
    path = write_tracks(tmp_path / f"v{suffix}", *tracks, codec=codec)
    count = next(count for size, count, _ in tracks if size[0] == width)
    assert (probe(path).width, probe(path).duration_seconds) == (width, pytest.approx(count / 5, abs=1e-3))
    assert frame_at(path, 0.5).shape[1] == width
    assert {picture.shape[1] for _, picture in iterate_frames(path, 5.0)} == {width}


def write_growing(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """Motion JPEG whose pictures change their size, which the container does not know."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuvj420p"
        container.start_encoding()
        for index, size in enumerate(sizes):
            content = io.BytesIO()
            Image.new("RGB", size, (0, 128, 9)).save(content, "JPEG", quality=20)
            packet = av.Packet(content.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 5)
            container.mux(packet)
    return path


def test_pictures_that_change_their_size_keep_that_of_the_first(tmp_path: Path) -> None:
    path = write_growing(tmp_path / "v.mkv", [(64, 48)] * 4 + [(200, 90)] * 4)
    assert {picture.shape for _, picture in iterate_frames(path, 5.0)} == {(48, 64, 3)}


def test_a_picture_that_grows_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_streams, "MAX_PIXELS", 640 * 480)
    path = write_growing(tmp_path / "v.mkv", [(64, 48)] * 10 + [(1600, 1600)] + [(64, 48)] * 10)
    assert probe(path).width == 64
    for read in (lambda: list(iterate_frames(path, 5.0)), lambda: frame_at(path, 2.1)):
        with pytest.raises(DataError, match=r"v\.mkv.*a picture in the middle of it is too large"):
            read()
    first = write_growing(tmp_path / "first.mkv", [(1600, 1600)] * 2)
    with pytest.raises(DataError, match=r"first\.mkv: its pictures are too large \(1600x1600\)"):
        probe(first)


def test_decoding_that_takes_far_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tracks(tmp_path / "v.mkv", ((64, 48), 9, True))
    monkeypatch.setattr(video_track, "DECODING_SECONDS", -1.0)
    monkeypatch.setattr(video_track, "DECODING_SECONDS_PER_SECOND", 0.0)
    with pytest.raises(DataError, match=r"v\.mkv.*decoding 0\.\d s of it took"):
        list(iterate_frames(path, 5.0))
