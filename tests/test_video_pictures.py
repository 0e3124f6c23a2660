"""Pictures come as they are shown: turned and mirrored as the file says, transparent ones on a white ground."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dciml.media import frame_at, iterate_frames, probe, write_video

LEVELS = np.array([[40, 100], [160, 220]], dtype=np.uint8)  # above left, above right; below left, below right


def quarters() -> np.ndarray:
    return np.repeat(LEVELS.repeat(32, axis=0).repeat(48, axis=1)[..., None], 3, axis=2)


def corners(picture: np.ndarray) -> list[list[int]]:
    height, width = picture.shape[:2]
    return [[int(picture[y, x, 0]) for x in (8, width - 8)] for y in (8, height - 8)]


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """A copy whose display matrix takes column x and row y to the column a·x + c·y and the row b·x + d·y."""
    content = path.read_bytes()
    one = 1 << 16
    straight = struct.pack(">6i", one, 0, 0, 0, one, 0)
    at = content.index(straight, content.index(b"tkhd"))
    turned = struct.pack(">6i", a * one, b * one, 0, c * one, d * one, 0)
    path = path.with_name(f"turned{a}{b}{c}{d}.mp4")
    path.write_bytes(content[:at] + turned + content[at + len(turned) :])
    return path


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), LEVELS),
        ((-1, 0, 0, 1), LEVELS[:, ::-1]),
        ((1, 0, 0, -1), LEVELS[::-1]),
        ((-1, 0, 0, -1), LEVELS[::-1, ::-1]),
        ((0, 1, 1, 0), LEVELS.T),
        ((0, 1, -1, 0), LEVELS.T[:, ::-1]),
        ((0, -1, 1, 0), LEVELS.T[::-1]),
        ((0, -1, -1, 0), LEVELS.T[::-1, ::-1]),
    ],
)
def test_all_eight_orientations_are_shown(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: np.ndarray
) -> None:
    write_video(tmp_path / "straight.mp4", [quarters()] * 3, 5)
    path = with_matrix(tmp_path / "straight.mp4", *matrix)
    size = (96, 64) if matrix[0] else (64, 96)
    assert (probe(path).width, probe(path).height) == size
    for picture in (frame_at(path, 0.3), next(iterate_frames(path, 1.0))[1], frame_at(path, 0.3, (48, 48))):
        assert np.abs(np.array(corners(picture)) - shown.astype(int)).max() <= 3
    assert frame_at(path, 0.3).shape == (size[1], size[0], 3)


def turning(count: int) -> bytes:
    """What H.264 says before a picture that is to be turned by a quarter (display orientation, an SEI message)."""
    bits = (
        "0" + "0" + "0" + f"{0x4000:016b}" + "1" + "0"
    )  # not cancelled, not flipped, the angle, for this picture
    payload = int(f"{bits}1".ljust(24, "0"), 2).to_bytes(3, "big")
    return (b"\0\0\1\6" + bytes([47, len(payload)]) + payload + b"\x80") * count


def test_a_single_picture_that_the_codec_turns_turns_nothing(tmp_path: Path) -> None:
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 96, 64, "yuv420p", Fraction(1, 5)
    context.options = {"bf": "0", "crf": "10", "g": "5"}
    path = tmp_path / "v.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
        frames = [av.VideoFrame.from_ndarray(quarters(), format="rgb24") for _ in range(10)]
        for frame, pts in zip(frames, range(10), strict=True):
            frame.pts = pts
        packets = [
            p for frame in [*frames, None] for p in context.encode(frame and frame.reformat(format="yuv420p"))
        ]
        for number, made in enumerate(packets):
            content = bytes(made)
            at = content.index(b"\0\0\1\x65") if made.is_keyframe else 0
            packet = av.Packet(content[:at] + turning(int(number == 0)) + content[at:])
            packet.stream, packet.pts, packet.dts, packet.time_base = (
                stream,
                made.pts,
                made.dts,
                Fraction(1, 5),
            )
            packet.is_keyframe = made.is_keyframe
            container.mux(packet)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation != 0  # the message is understood
    assert (probe(path).width, probe(path).height) == (96, 64)
    for seconds, picture in iterate_frames(path, 2.0):
        for seen in (picture, frame_at(path, seconds)):
            assert np.abs(np.array(corners(seen)) - LEVELS.astype(int)).max() <= 3


ALPHA_FORMS = {
    "ink.webm": ("libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "10"}),
    "ink8.webm": ("libvpx", "yuva420p", {"auto-alt-ref": "0", "b": "2M"}),
    "ink.mkv": ("ffv1", "bgra", {}),
    "png.mov": ("png", "rgba", {}),
    "prores.mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
    "ink.apng": ("apng", "rgba", {}),
}


@pytest.mark.parametrize("name", ALPHA_FORMS)
def test_transparent_pictures_lie_on_white(tmp_path: Path, name: str) -> None:
    codec, pixels, options = ALPHA_FORMS[name]
    path = tmp_path / name
    ink = np.zeros(
        (64, 96, 4), dtype=np.uint8
    )  # all black; the left half is there, a strip half, the rest is not
    ink[:, :48, 3], ink[:, 48:72, 3] = 255, 128
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        if name.endswith("webm"):
            stream.metadata["alpha_mode"] = "1"
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(ink, format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for picture in (frame_at(path, 0.5), list(iterate_frames(path, 5.0))[-1][1]):
        assert picture[:, 4:40].max() <= 8
        assert np.abs(picture[:, 54:66].astype(int) - 127).max() <= 12
        assert picture[:, 80:].min() >= 247


def test_a_picture_is_scaled_into_a_box(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [quarters()] * 3, 5)
    assert frame_at(tmp_path / "v.mp4", 0.0, within=(48, 640)).shape == (32, 48, 3)
    assert frame_at(tmp_path / "v.mp4", 0.0, within=(480, 32)).shape == (32, 48, 3)
