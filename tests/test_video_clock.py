"""The length of a video is that of its pictures, whatever its container states, and also where its clock breaks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.encoders.joined import encode_video
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.media import frame_at, iterate_frames, probe

FPS, COUNT = 10, 40
SECONDS = COUNT / FPS


def level(picture: np.ndarray) -> int:
    return round((float(picture.mean()) - 20) / 5)


def write(
    path: Path,
    codec: str = "mpeg4",
    kind: str | None = None,
    first: int = 0,
    start_seconds: float = 0.0,
    sound_seconds: float = 0.0,
    times: list[float] | None = None,
    rate: int = FPS,
    **options: str,
) -> bytes:
    """A file of grey pictures, each 5 steps brighter than the one before; its content."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=32000) if sound_seconds else None
        for index, seconds in enumerate(times or [k / rate for k in range(COUNT)]):
            picture = np.full((48, 64, 3), 20 + 5 * ((first + index) % COUNT), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round((seconds + start_seconds) * rate), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start in range(0, round(sound_seconds * 32000), 1152) if sound else ():
            silence = np.zeros((1, 1152), dtype=np.int16)
            heard = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 32000, start, Fraction(1, 32000)
            container.mux(sound.encode(heard))
    return path.read_bytes()


def check(path: Path, seconds: float, tolerance: float = 0.011) -> None:
    """Length, rows and single pictures agree; picture k, counted through the parts, is there at k / FPS."""
    info = probe(path)
    assert info.duration_seconds == pytest.approx(seconds, abs=tolerance)
    found = list(iterate_frames(path, 2.0))
    assert len(found) == len(encode_video(path, BuiltinVisualEncoder()).rows)
    assert abs(len(found) - 2 * seconds) < 1
    for at, picture in found:
        expected = {round(min(at + edge, SECONDS * 9) * FPS - 0.5) % COUNT for edge in (0.011, 0.051, 0.1)}
        assert level(picture) in expected, at
        assert level(frame_at(path, at)) == level(picture), at


def joined_ts(folder: Path, *starts: float, codec: str = "mpeg2video", kind: str = "mpegts") -> Path:
    parts = (
        write(folder / f"part{k}.ts", codec, kind, start_seconds=start, g="8")
        for k, start in enumerate(starts)
    )
    (folder / "joined.ts").write_bytes(b"".join(parts))
    return folder / "joined.ts"


@pytest.mark.parametrize(
    "starts",
    [(0.0, 0.0), (100.0, 0.0), (0.0, 900.0), (50.0, 0.0, 30.0), (90000.0, 0.0)],
    ids=["anew", "back", "ahead", "three", "far back"],
)
@pytest.mark.parametrize(
    ("codec", "kind"),
    [
        ("libx264", "mpegts"),
        ("mpeg2video", "mpeg"),
        pytest.param("mpeg2video", "mpegts", marks=pytest.mark.slow),
    ],
)
def test_recordings_put_together_go_on(
    tmp_path: Path, starts: tuple[float, ...], codec: str, kind: str
) -> None:
    check(joined_ts(tmp_path, *starts, codec=codec, kind=kind), SECONDS * len(starts))


def test_a_clock_that_runs_over_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "over.ts"
    write(path, "libx264", "mpegts", start_seconds=2**33 / 90000 - 3.0)  # a TS begins 1.4 s later
    check(path, SECONDS)


def test_flash_whose_clock_goes_back_goes_on(tmp_path: Path) -> None:
    content = write(tmp_path / "part.flv", "flv1")
    (tmp_path / "back.flv").write_bytes(content + content[13:])  # without the second head
    check(tmp_path / "back.flv", 2 * SECONDS)


@pytest.mark.parametrize("name", ["back.mkv", "back.webm"])
def test_what_a_browser_would_stop_at_is_refused_by_name(tmp_path: Path, name: str) -> None:
    content = write(tmp_path / f"part{name}", "libvpx" if name.endswith("webm") else "libx264")
    path = tmp_path / name
    path.write_bytes(content + content)
    for read in (probe, lambda path: list(iterate_frames(path, 2.0)), lambda path: frame_at(path, 1.0)):
        with pytest.raises(
            DataError, match=rf"{name}.*its clock goes back by 3\.9 s after 3\.9 s.*To mend it"
        ):
            read(path)


def test_sound_goes_on_with_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    part = write(tmp_path / "part.ts", "mpeg2video", "mpegts", sound_seconds=SECONDS)
    path.write_bytes(part + part)
    assert probe(path).duration_seconds == pytest.approx(2 * SECONDS, abs=0.05)
    assert level(frame_at(path, 5.05)) == 10


@pytest.mark.parametrize(
    ("codec", "options"), [("mpeg4", {}), ("mpeg4", {"bf": "2", "qmin": "1", "qmax": "1"}), ("ffv1", {})]
)
def test_a_file_without_its_index_is_read_whole(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    content = write(tmp_path / "whole.avi", codec, **options)
    path = tmp_path / "noindex.avi"
    path.write_bytes(content[: content.rindex(b"idx1")])
    check(path, SECONDS)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"noindex\.avi: this video cannot be read"):
        probe(path)


def test_a_program_stream_is_counted_to_its_last_picture(tmp_path: Path) -> None:
    path = tmp_path / "p.mpg"
    write(path, "mpeg2video", "mpeg", times=[k / 25 for k in range(COUNT)], rate=25)
    assert probe(path).duration_seconds == pytest.approx(COUNT / 25, abs=1e-3)


def change_scale(content: bytearray, factor: float) -> None:
    """Write a wrong length into the head of the track, which counts in its own scale."""
    at = content.index(b"mdhd") + 20
    length = int.from_bytes(content[at : at + 4], "big")
    content[at : at + 4] = round(length * factor).to_bytes(4, "big")


@pytest.mark.parametrize("factor", [1 / 30, 0.0, 10.0])
def test_a_wrong_length_of_the_track_is_not_believed(tmp_path: Path, factor: float) -> None:
    content = bytearray(write(tmp_path / "right.mp4", "libx264"))
    change_scale(content, factor)
    path = tmp_path / "wrong.mp4"
    path.write_bytes(content)
    check(path, SECONDS)


def test_a_time_scale_that_no_camera_has_is_refused(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "right.mp4", "libx264"))
    at = content.index(b"mdhd") + 16
    scale = int.from_bytes(content[at : at + 4], "big")
    content[at : at + 4] = (100 * scale).to_bytes(4, "big")
    path = tmp_path / "fast.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"fast\.mp4: .* pictures in .* s, which no camera makes"):
        probe(path)


def ten_times(content: bytes, kind: str) -> bytes:
    """The content with a stated length of ten times the right one."""
    changed = bytearray(content)
    if kind == "mkv":
        at = content.index(b"\x44\x89\x88") + 3
        stated = struct.unpack(">d", content[at : at + 8])[0]
        changed[at : at + 8] = struct.pack(">d", 10 * stated)
    elif kind == "flv":
        at = content.index(b"duration") + 9
        changed[at : at + 8] = struct.pack(">d", 10 * SECONDS)
    else:
        for at in (content.index(b"avih") + 24, content.index(b"strh") + 40):
            changed[at : at + 4] = (10 * COUNT).to_bytes(4, "little")
    return bytes(changed)


@pytest.mark.parametrize(
    ("kind", "codec"), [("mkv", "ffv1"), ("flv", "flv1"), ("avi", "ffv1"), ("avi", "mpeg4")]
)
def test_a_whole_file_may_state_any_length_and_a_cut_one_is_refused(
    tmp_path: Path, kind: str, codec: str
) -> None:
    path = tmp_path / f"v.{kind}"
    content = write(path, codec)
    assert ten_times(content, kind) != content
    path.write_bytes(ten_times(content, kind))
    check(path, SECONDS)
    for whole in (content, ten_times(content, kind)):
        path.write_bytes(whole[: len(whole) * 6 // 10])
        with pytest.raises(DataError, match=rf"v\.{kind}: this video cannot be read"):
            probe(path)


def test_the_last_picture_stands_while_there_is_sound(tmp_path: Path) -> None:
    for name in ("sound.mkv", "sound.mp4", "sound.ts", "sound.avi"):
        path = tmp_path / name
        write(path, "libx264" if name != "sound.avi" else "mpeg4", sound_seconds=9.0)
        assert probe(path).duration_seconds == pytest.approx(9.0, abs=0.1)
        found = list(iterate_frames(path, 2.0))
        assert len(found) in (18, 19), name
        assert {level(picture) for at, picture in found if at >= SECONDS} == {COUNT - 1}
        assert level(frame_at(path, 8.5)) == COUNT - 1


def test_sound_that_ends_a_little_later_adds_nothing(tmp_path: Path) -> None:
    write(tmp_path / "v.mkv", sound_seconds=SECONDS + 0.1)
    assert probe(tmp_path / "v.mkv").duration_seconds == pytest.approx(SECONDS, abs=2e-3)


@pytest.mark.parametrize("name", ["slides.mkv", "slides.ts", "slides.mp4"])
def test_slides_that_stand_for_minutes_are_a_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_slides(path, seconds_each=60, count=8)
    assert probe(path).duration_seconds == pytest.approx(480.0, abs=0.1)
    assert [level(picture) for _, picture in iterate_frames(path, 1 / 60)] == list(range(8))
    assert level(frame_at(path, 200.0)) == 3


def write_slides(path: Path, seconds_each: int, count: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(1, seconds_each))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(count):
            picture = np.full((48, 64, 3), 20 + 5 * index, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(seconds_each, 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_claimed_time_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mkv"
    write(path, "ffv1", times=[k * 3500.0 for k in range(30)])
    for read in (probe, lambda path: list(iterate_frames(path, 2.0)), lambda path: frame_at(path, 1.0)):
        with pytest.raises(DataError, match=r"sparse\.mkv.*its clock shows 10150\d s for 30 pictures"):
            read(path)


@pytest.mark.parametrize(
    "change", [lambda content: content, lambda content: content + content[13:]], ids=["once", "twice"]
)
def test_a_file_is_read_anew_when_it_has_changed(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "v.flv"
    content = write(path, "flv1")
    assert probe(path).duration_seconds == pytest.approx(SECONDS, abs=0.011)
    path.write_bytes(change(content))
    lasts = SECONDS * len(path.read_bytes()) / len(content)
    assert probe(path).duration_seconds == pytest.approx(lasts, rel=0.01)
