"""Packets on which no wanted picture depends are not decoded; the pictures are those of decoding everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dciml import video_keys, video_track
from dciml.features.base import num_rows
from dciml.media import iterate_frames, probe

COUNT, FPS = 150, 25


@dataclass(frozen=True)
class Form:
    """How a file of moving patches is written.

    Attributes:
        has_tails: whether pictures can be left out at one row a second.
        uneven: pictures stay for 10 to 500 ms.
    """

    codec: str
    options: dict[str, str] = field(default_factory=dict)
    has_tails: bool = True
    uneven: bool = False


X265 = "log-level=none:pools=none"
FORMS = {
    "closed.mp4": Form("libx264", {"g": "10"}),
    "each_second.mp4": Form("libx264", {"g": "25", "bf": "0"}),  # just where pictures are looked at
    "each_second.mkv": Form("libx264", {"g": "25"}),
    "closed.ts": Form("libx264", {"g": "10"}),
    "closed.mkv": Form("libx264", {"g": "10", "bf": "0"}),
    "b_frames.mp4": Form("libx264", {"g": "40", "x264-params": "b-pyramid=normal:bframes=5:b-adapt=0:ref=4"}),
    "open.mp4": Form(
        "libx264", {"g": "10", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}, has_tails=False
    ),
    "refresh.mp4": Form("libx264", {"g": "10", "x264-params": "intra-refresh=1:bframes=0"}, has_tails=False),
    "interlaced.ts": Form("libx264", {"g": "10", "flags": "+ildct+ilme"}),
    "uneven.mp4": Form("libx264", {"g": "10"}, uneven=True),
    "uneven.mkv": Form("libx264", {"g": "7", "x264-params": "bframes=3:b-adapt=0"}, uneven=True),
    "stream.h264": Form("libx264", {"g": "10"}, has_tails=False),  # it has no times
    "closed_hevc.mp4": Form("libx265", {"x265-params": f"{X265}:keyint=10:open-gop=0"}),
    "closed_hevc.ts": Form("libx265", {"x265-params": f"{X265}:keyint=10:open-gop=0:bframes=0"}),
    "open_hevc.mp4": Form("libx265", {"x265-params": f"{X265}:keyint=10:open-gop=1"}, has_tails=False),
    "closed.webm": Form("libvpx", {"g": "10", "b": "1M", "deadline": "realtime"}),
    "hidden.webm": Form("libvpx-vp9", {"g": "30", "b": "1M", "cpu-used": "8", "lag-in-frames": "16"}),
    "pictures.avi": Form("mjpeg", {}),
    "pictures.mov": Form("prores_ks", {}),
    "other.mp4": Form("mpeg4", {"g": "10", "bf": "2"}, has_tails=False),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: write(folder / name, form) for name, form in FORMS.items()}


def write(path: Path, form: Form) -> Path:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    at_ms = 0
    with av.open(str(path), "w") as container:
        preset = {"preset": "ultrafast"} if form.codec in ("libx264", "libx265") else {}
        stream = container.add_stream(form.codec, rate=FPS, options={**preset, **form.options})
        stream.width, stream.height = 96, 64
        stream.pix_fmt = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(form.codec, "yuv420p")
        if form.uneven:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(COUNT):
            picture = np.ascontiguousarray(scene[index % 50 : index % 50 + 64, index : index + 96])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if form.uneven:
                frame.pts, frame.time_base = at_ms, Fraction(1, 1000)
                at_ms += int(rng.integers(10, 80)) if index % 9 else 500
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def num_decoded(path: Path, rate: float) -> int:
    with video_track.opened(path) as track:
        return sum(1 for _ in track._packets([rate], 0))


@pytest.mark.parametrize("name", FORMS)
def test_pictures_are_those_of_decoding_everything(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, rates = files[name], (0.3, 1.0, 3.0)
    fewer, num_fewer = [list(iterate_frames(path, rate)) for rate in rates], num_decoded(path, 1.0)
    monkeypatch.setattr(video_track, "SKIPPING_CODECS", set())
    num_all = num_decoded(path, 1.0)
    assert num_all >= COUNT
    assert (num_fewer < 0.8 * num_all) == FORMS[name].has_tails
    assert num_fewer < 0.5 * num_all or not name.startswith("each_second")
    for rate, found in zip(rates, fewer, strict=True):
        whole = list(iterate_frames(path, rate))
        assert len(whole) == num_rows(probe(path).duration_seconds, rate)
        assert [seconds for seconds, _ in found] == [seconds for seconds, _ in whole]
        assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, whole, strict=True))


def test_a_long_way_to_the_next_key_takes_little_memory(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files["closed.mp4"]
    few = num_decoded(path, 0.2)
    monkeypatch.setattr(video_keys, "HELD_BYTES", 100)
    assert few < 0.5 * COUNT < num_decoded(path, 0.2)


@pytest.mark.parametrize("name", ["closed.mp4", "closed.ts", "closed_hevc.mp4", "closed_hevc.ts"])
def test_packets_that_set_parameters_are_kept(files: dict[str, Path], name: str) -> None:
    with video_track.opened(files[name]) as track:
        packets = [packet for packet in track.container.demux(video=0) if packet.size]
        keys = [
            number for number, packet in enumerate(packets) if video_keys.is_true_key(packet, track.decoder)
        ]
        setting = [
            n for n, packet in enumerate(packets) if video_keys._sets_parameters(packet, track.decoder)
        ]
        assert keys == list(range(0, COUNT, 10))
        assert setting == (keys if name.endswith(".ts") else keys[:0])
