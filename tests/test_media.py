"""Decoding is by time and exact; damaged files are refused in plain words."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.media import frame_at, iterate_frames, probe, write_video

FPS = 10


def level(picture: np.ndarray) -> int:
    """Which picture of `grey_steps` this is: each is 5 steps brighter than the one before."""
    return round((float(picture.mean()) - 20) / 5)


def grey_steps(count: int = 40) -> list[np.ndarray]:
    return [np.full((48, 64, 3), 20 + 5 * index, dtype=np.uint8) for index in range(count)]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at ten pictures a second."""
    path = tmp_path_factory.mktemp("media") / "steps.mp4"
    write_video(path, iter(grey_steps()), FPS, crf=10)
    return path


def write_timed(path: Path, seconds: list[float], last_seconds: float) -> None:
    """A file of variable frame rate: picture i is shown from seconds[i] on."""
    base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = base
        ends = [*seconds[1:], last_seconds]
        for picture, start, end in zip(grey_steps(len(seconds)), seconds, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(start * 1000), base
            frame.duration = round((end - start) * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_probe_reads_length_and_size(steps: Path) -> None:
    info = probe(steps)
    assert (info.duration_seconds, info.width, info.height, info.average_fps) == (4.0, 64, 48, 10.0)


@pytest.mark.parametrize("rate", [2.0, 4.0, 10.0, 25.0])
def test_frames_are_those_on_screen_at_each_time(steps: Path, rate: float) -> None:
    found = list(iterate_frames(steps, rate))
    assert [seconds for seconds, _ in found] == pytest.approx([k / rate for k in range(round(4 * rate))])
    assert [level(picture) for _, picture in found] == [int(seconds * FPS + 1e-6) for seconds, _ in found]


def test_frames_follow_a_variable_rate(tmp_path: Path) -> None:
    starts = [0.0, 0.1, 0.2, 1.7, 1.8, 3.0]
    path = tmp_path / "timed.mp4"
    write_timed(path, starts, 4.0)
    for seconds, picture in iterate_frames(path, 4.0):
        expected = max(index for index, start in enumerate(starts) if start <= seconds + 1e-6)
        assert level(picture) == expected, seconds


def test_frames_are_scaled_while_decoding(steps: Path) -> None:
    _, picture = next(iterate_frames(steps, 1.0, (32, 16)))
    assert picture.shape == (16, 32, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.0, 2.34, 3.95])
def test_frame_at_is_exact(steps: Path, seconds: float) -> None:
    assert level(frame_at(steps, seconds)) == int(seconds * FPS)


def test_frame_at_past_the_end_is_the_last(steps: Path) -> None:
    assert level(frame_at(steps, 99.0)) == 39
    with pytest.raises(ValueError, match="negative"):
        frame_at(steps, -1.0)


def test_colours_survive(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[:, :32], picture[:, 32:] = (200, 30, 30), (30, 30, 200)
    write_video(tmp_path / "c.mp4", [picture] * 3, 5)
    found = frame_at(tmp_path / "c.mp4", 0.2).astype(int)
    assert np.abs(found - picture)[:, [4, 60]].max() < 12


def test_phone_videos_stand_upright(steps: Path, tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[:24] = 200  # bright above
    write_video(tmp_path / "lying.mp4", [picture] * 3, 5)
    content = (tmp_path / "lying.mp4").read_bytes()
    track = content.index(b"tkhd")
    straight = b"".join(v.to_bytes(4, "big", signed=True) for v in (1 << 16, 0, 0, 0, 1 << 16, 0))
    clockwise = b"".join(v.to_bytes(4, "big", signed=True) for v in (0, 1 << 16, 0, -(1 << 16), 0, 0))
    where = content.index(straight, track)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content[:where] + clockwise + content[where + len(clockwise) :])
    assert (probe(path).width, probe(path).height) == (48, 64)
    turned = frame_at(path, 0.0)
    assert turned.shape == (64, 48, 3)
    assert turned[:, 40:].mean() > 180  # what was above is on the right
    assert turned[:, :8].mean() < 20
    assert frame_at(path, 0.0, (24, 32)).shape == (32, 24, 3)


def break_missing(path: Path, content: bytes) -> None:
    del path, content


def break_empty(path: Path, content: bytes) -> None:
    path.write_bytes(b"")
    del content


def break_text(path: Path, content: bytes) -> None:
    path.write_text("not a video\n" * 100)
    del content


def break_head_only(path: Path, content: bytes) -> None:
    path.write_bytes(content[:300])


def break_folder(path: Path, content: bytes) -> None:
    path.mkdir()
    del content


@pytest.mark.parametrize("break_it", [break_missing, break_empty, break_text, break_head_only, break_folder])
@pytest.mark.parametrize(
    "read",
    [probe, lambda path: list(iterate_frames(path, 2.0)), lambda path: frame_at(path, 1.0)],
    ids=["probe", "iterate_frames", "frame_at"],
)
def test_unusable_files_are_refused(
    steps: Path, tmp_path: Path, break_it: Callable[[Path, bytes], None], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "bad.mp4"
    break_it(path, steps.read_bytes())
    with pytest.raises(DataError, match=r"bad\.mp4.*To mend it"):
        read(path)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    write_video(tmp_path / "whole.mp4", pictures, FPS)
    content = (tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.mp4: this video cannot be read"):
        list(iterate_frames(path, 2.0))


def test_a_sound_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="no video track"):
        probe(path)


def test_a_failed_write_leaves_the_old_file(steps: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="has the shape"):
        write_video(path, [grey_steps()[0], np.zeros((48, 66, 3), dtype=np.uint8)], 10)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_video_refuses_what_players_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "v.mp4", [], 10)
    with pytest.raises(ValueError, match="even sides"):
        write_video(tmp_path / "v.mp4", [np.zeros((47, 64, 3), dtype=np.uint8)], 10)


def test_written_files_start_at_once_and_play_everywhere(steps: Path) -> None:
    content = steps.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(steps)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_frames_per_second_must_be_positive(steps: Path) -> None:
    with pytest.raises(ValueError, match="positive"):
        next(iterate_frames(steps, 0.0))
