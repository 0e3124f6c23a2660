"""Each odd form of a video file, generated: its pictures come at the times at which a player shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from dciml import video_track
from dciml.errors import DataError
from dciml.features.base import num_rows
from dciml.media import frame_at, iterate_frames, probe, write_video

FPS = 10
COUNT = 40


@dataclass(frozen=True)
class Form:
    """How a test file of `COUNT` grey pictures, each 5 steps brighter, is written."""

    codec: str = "libx264"
    size: tuple[int, int] = (64, 48)
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    file_options: dict[str, str] = field(default_factory=dict)
    start_seconds: float = 0.0
    sound_seconds: float = 0.0
    aspect: Fraction | None = None


def grey(index: int, size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), 20 + 5 * index, dtype=np.uint8)


def level(picture: np.ndarray) -> int:
    return round((float(picture.mean()) - 20) / 5)


def write(path: Path, form: Form) -> Path:
    with av.open(str(path), "w", options=form.file_options) as container:
        stream = container.add_stream(form.codec, rate=FPS, options=form.options)
        stream.width, stream.height = form.size
        stream.pix_fmt = form.pixels
        if form.aspect is not None:
            stream.codec_context.sample_aspect_ratio = form.aspect
        sound = container.add_stream("aac", rate=8000) if form.sound_seconds else None
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(grey(index, form.size), format="rgb24")
            frame.pts, frame.time_base = index + round(form.start_seconds * FPS), Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            write_silence(container, sound, form.sound_seconds)
    return path


def write_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, round(seconds * 8000), 1024):
        silence = np.zeros((1, 1024), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


B_FRAMES = {"bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=normal:keyint=12"}
FORMS = {
    "b_frames.mp4": Form(options=B_FRAMES),
    "b_frames.avi": Form("mpeg4", options={"bf": "2", "qmin": "1", "qmax": "1"}),
    "late_clock.ts": Form(options=B_FRAMES),
    "shared_times.mpg": Form("mpeg4", options={"qmin": "1", "qmax": "1"}),
    "later_clock.mkv": Form(start_seconds=100.0),
    "no_duration.mkv": Form(file_options={"live": "1"}),
    "no_duration.webm": Form("libvpx", options={"b": "2M"}, file_options={"live": "1"}),
    "fragments.mp4": Form(file_options={"movflags": "frag_keyframe+empty_moov"}),
    "odd.mkv": Form("ffv1", (61, 47), "yuv420p"),
    "odd.webm": Form("libvpx-vp9", (61, 47), options={"b": "2M", "cpu-used": "8"}),
    "deep.mkv": Form("libx264", pixels="yuv420p10le"),
    "grey.mkv": Form("ffv1", pixels="gray"),
    "alpha.mkv": Form("ffv1", pixels="bgra"),
    "moving.gif": Form("gif", pixels="gray"),
    "sound.mkv": Form(sound_seconds=9.0),
    "sound.mp4": Form(sound_seconds=9.0),
    "12:30 100%d [b].mp4": Form(),
}


@pytest.mark.parametrize("name", FORMS)
def test_pictures_of_every_form_come_at_their_times(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, FORMS[name])
    info = probe(path)
    assert (info.width, info.height) == FORMS[name].size
    lasts_seconds = max(
        COUNT / FPS, FORMS[name].sound_seconds
    )  # the last picture stands while there is sound
    assert info.duration_seconds == pytest.approx(
        lasts_seconds, abs=0.13 if FORMS[name].sound_seconds else 0.026
    )
    found = list(iterate_frames(path, 4.0))
    assert [seconds for seconds, _ in found[:16]] == [k / 4 for k in range(16)]
    assert len(found) == num_rows(info.duration_seconds, 4.0)
    for seconds, picture in found:
        # A time on the edge of two pictures may fall on either where the container rounds times (to 1 ms).
        expected = {min(max(int(seconds * FPS + edge), 0), COUNT - 1) for edge in (-0.02, 0.02)}
        assert level(picture) in expected, seconds
        assert picture.shape == (info.height, info.width, 3)


@pytest.mark.parametrize("name", FORMS)
def test_single_pictures_of_every_form_are_exact(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, FORMS[name])
    for seconds in (0.0, 1.25, 2.55, 3.95, 60.0):
        expected = min(max(int(seconds * FPS), 0), COUNT - 1)
        assert level(frame_at(path, seconds)) == expected, seconds


def test_a_stream_without_times_runs_at_25_pictures_a_second(tmp_path: Path) -> None:
    path = write(tmp_path / "raw.h264", Form(options=B_FRAMES))
    assert probe(path).duration_seconds == pytest.approx(COUNT / 25)
    assert [level(picture) for _, picture in iterate_frames(path, 5.0)] == list(range(0, COUNT, 5))
    assert level(frame_at(path, 1.0)) == 25


def test_times_count_from_the_first_sound_where_that_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "late.mkv", Form(start_seconds=2.0, sound_seconds=6.0))
    assert probe(path).duration_seconds == pytest.approx(6.0, abs=0.03)
    levels = [level(picture) for _, picture in iterate_frames(path, 2.0)]
    assert levels == pytest.approx([0, 0, 0, 0, 0, 5, 10, 15, 20, 25, 30, 35], abs=1)
    assert level(frame_at(path, 0.5)) == 0
    assert level(frame_at(path, 3.05)) == 10


def test_pixels_that_are_not_square_are_shown_square(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.mp4", Form(size=(48, 48), aspect=Fraction(4, 3)))
    assert (probe(path).width, probe(path).height) == (64, 48)
    assert frame_at(path, 1.0).shape == (48, 64, 3)
    assert next(iterate_frames(path, 1.0))[1].shape == (48, 64, 3)


def cover_picture() -> av.Packet:
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 255, dtype=np.uint8), format="rgb24")
    return [*context.encode(frame.reformat(format="yuvj420p")), *context.encode(None)][0]


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        picture = cover_picture()
        picture.stream, picture.pts, picture.dts = cover, 0, 0
        container.mux(picture)
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(grey(index, (64, 48)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert (probe(path).width, probe(path).duration_seconds) == (64, 4.0)
    assert [level(picture) for _, picture in iterate_frames(path, 1.0)] == [0, 10, 20, 30]


def test_a_song_with_a_cover_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        sound = container.add_stream("aac", rate=8000)
        container.start_encoding()
        picture = cover_picture()
        picture.stream, picture.pts, picture.dts = cover, 0, 0
        container.mux(picture)
        write_silence(container, sound, 2.0)
    with pytest.raises(DataError, match=r"song\.mp4.*it has only a cover picture and sound"):
        probe(path)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "talk.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        write_silence(container, container.add_stream("aac", rate=8000), 2.0)
    with pytest.raises(DataError, match=r"talk\.m4a.*it has no video track, only sound"):
        probe(path)


@pytest.mark.parametrize(
    "content", ["#EXTM3U\n#EXTINF:4,\nother.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile other.mp4\n"]
)
def test_a_file_cannot_point_to_others(tmp_path: Path, content: str) -> None:
    write(tmp_path / "other.mp4", Form())
    path = tmp_path / "list.mp4"
    path.write_text(content)
    with pytest.raises(DataError, match=r"list\.mp4: this video cannot be read"):
        probe(path)


def test_a_single_picture_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(grey(3, (64, 48))).save(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "photo.mp4")
        with pytest.raises(DataError, match="it is a single picture, not a video"):
            probe(tmp_path / "photo.mp4")


def test_a_few_damaged_packets_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mkv", Form("mjpeg", pixels="yuvj420p", options={"q": "2"}))
    content = bytearray(path.read_bytes())
    starts = [k for k in range(len(content)) if content[k : k + 3] == b"\xff\xd8\xff"]
    assert len(starts) == COUNT
    few, many = tmp_path / "few.mkv", tmp_path / "many.mkv"
    for damaged, file in ((starts[5:7], few), (starts[5:25], many)):
        copy = bytearray(content)
        for start in damaged:
            end = content.index(b"\xff\xd9", start)
            copy[start:end] = bytes(end - start)
        file.write_bytes(copy)
    levels = [level(picture) for _, picture in iterate_frames(few, float(FPS))]
    assert levels == pytest.approx([*range(5), 4, 4, *range(7, COUNT)], abs=0.1)
    with pytest.raises(DataError, match=r"many\.mkv.*\d+ of its \d+ packets are damaged"):
        list(iterate_frames(many, 4.0))


def test_a_cut_off_file_without_a_stated_track_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    whole = write(tmp_path / "whole.mkv", Form("ffv1")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.mkv.*it ends at"):
        probe(path)


def test_a_jumping_clock_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jump.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pts in (0, 1, 2, 100_000, 100_001):
            frame = av.VideoFrame.from_ndarray(grey(1, (64, 48)), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"its clock jumps by 10000 s|its clock jumps by 9999"):
        list(iterate_frames(path, 2.0))


def test_no_file_is_too_short(tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", [grey(3, (64, 48))], 25)
    assert [level(picture) for _, picture in iterate_frames(tmp_path / "one.mp4", 2.0)] == [3]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(
    "options", [{}, {"bf": "0"}, {"bf": "8", "x264-params": "b-pyramid=normal:open-gop=1:keyint=24"}]
)
def test_leaving_out_pictures_changes_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, options: dict[str, str]
) -> None:
    path = tmp_path / "busy.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        quiet = {"x265-params": "log-level=none:pools=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=30, options={"preset": "fast", **options, **quiet})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        scene = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        for index in range(100):
            picture = np.ascontiguousarray(scene[index % 50 : index % 50 + 64, index : index + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    rates = (0.7, 4.0, 7.0, 30.0)
    fewer = [list(iterate_frames(path, rate)) for rate in rates]
    with video_track.opened(path) as track:
        num_all, num_fewer = len(list(track.frames())), 0
    with video_track.opened(path) as track:
        num_fewer = len(list(track.frames([4.0])))
    assert num_all == 100
    assert (num_fewer < 80) == (options.get("bf") != "0")
    monkeypatch.setattr(video_track, "SKIPPING_CODECS", set())
    for rate, found in zip(rates, fewer, strict=True):
        whole = list(iterate_frames(path, rate))
        assert [seconds for seconds, _ in found] == [seconds for seconds, _ in whole]
        assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, whole, strict=True))


@pytest.mark.parametrize("name", ["mpeg4.ts", "mpeg4.mpg"])
def test_a_single_picture_is_never_decoded_from_the_middle_of_a_chain(name: str, tmp_path: Path) -> None:
    path, noise = tmp_path / name, np.random.default_rng(0).integers(0, 256, (48, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(COUNT):  # it moves, so that most of a picture is in the ones before it
            picture = np.ascontiguousarray(noise[:, 2 * index : 2 * index + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    for seconds, picture in iterate_frames(path, 8.0):
        np.testing.assert_array_equal(frame_at(path, seconds), picture, err_msg=f"at {seconds} s")
