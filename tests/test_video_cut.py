"""Pieces of videos: the grey of each picture is its number, and one second of the sound is loud."""

from __future__ import annotations

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.media import iterate_frames, probe, write_video
from dciml.video_cut import cut_video

RATE, SOUND_RATE, SIZE = 25, 16_000, (64, 48)
NUM_PICTURES = 200


def grey(number: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), 20 + number, np.uint8)


def write_sounding(
    path: Path, form: str = "mp4", codec: str = "libx264", sound: str = "aac", distance: int = 50
) -> Path:
    """Eight seconds; a key picture every `distance` pictures; the sound is silent but in the second from 4 to 5."""
    options = {"g": str(distance), "keyint_min": str(distance), "bf": "3", "sc_threshold": "0"}
    options |= {"crf": "10", "preset": "veryfast"} if codec == "libx264" else {"q": "2"}
    with av.open(str(path), "w", format=form) as out:
        pictures = out.add_stream(codec, rate=RATE, options=options)
        pictures.width, pictures.height, pictures.pix_fmt = *SIZE, "yuv420p"
        pictures.codec_context.thread_count = 1
        heard = out.add_stream(sound, rate=SOUND_RATE)
        heard.codec_context.layout = "mono"
        step = SOUND_RATE // RATE
        for number in range(NUM_PICTURES):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
            out.mux(pictures.encode(frame))
            times = (number * step + np.arange(step)) / SOUND_RATE
            wave = np.where((times >= 4) & (times < 5), 0.5 * np.sin(2 * np.pi * 440 * times), 0)
            samples = av.AudioFrame.from_ndarray(
                np.round(wave * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            samples.sample_rate, samples.pts = SOUND_RATE, number * step
            out.mux(heard.encode(samples))
        out.mux(pictures.encode(None))
        out.mux(heard.encode(None))
    return path


def numbers(path: Path) -> list[int]:
    """The number of each picture of a piece, as a player shows them."""
    return [round(float(picture.mean())) - 20 for _, picture in iterate_frames(path, RATE)]


def loud_seconds(path: Path) -> tuple[float, float]:
    """When the sound of a piece begins and ends."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        loud = [
            frame.time + np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1) / frame.sample_rate
            for frame in container.decode(stream)
        ]
    times = np.concatenate(loud)
    return float(times.min()), float(times.max())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounding(tmp_path_factory.mktemp("source") / "source.mp4")


def test_packets_are_copied_from_the_last_key_picture(source: Path, tmp_path: Path) -> None:
    piece = cut_video(source, tmp_path / "piece.mp4", 3.3, 6.0)
    assert (piece.pictures, piece.sound) == ("copied", "copied")
    assert piece.start_seconds == pytest.approx(2.0)
    assert piece.end_seconds == pytest.approx(6.0, abs=0.13)  # three pictures that others refer to
    shown = numbers(tmp_path / "piece.mp4")
    assert shown[:100] == pytest.approx(range(50, 150), abs=2)
    assert loud_seconds(tmp_path / "piece.mp4") == pytest.approx((2.0, 3.0), abs=0.05)


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_copied_pictures_are_those_of_the_source_to_the_bit(source: Path, tmp_path: Path) -> None:
    cut_video(source, tmp_path / "piece.mp4", 2.0, 4.0)
    kept = packets(tmp_path / "piece.mp4")
    assert len(kept) >= 50
    assert set(kept) <= set(packets(source))


def test_an_exact_piece_begins_with_the_picture_and_the_sound(source: Path, tmp_path: Path) -> None:
    piece = cut_video(source, tmp_path / "piece.mp4", 3.3, 6.0, exact=True)
    assert (piece.start_seconds, piece.pictures, piece.sound) == (3.3, "encoded", "encoded")
    assert piece.end_seconds == pytest.approx(6.0, abs=0.03)
    with av.open(str(tmp_path / "piece.mp4")) as container:
        frames = list(container.decode(video=0))
        first = [float(frame.pts * frame.time_base) for frame in frames[:3]]
    assert first == pytest.approx(
        [0.0, 0.02, 0.06], abs=1e-3
    )  # the picture of 3.28 s has been on screen for 20 ms
    assert numbers(tmp_path / "piece.mp4")[0] == pytest.approx(82, abs=2)
    assert numbers(tmp_path / "piece.mp4")[-1] == pytest.approx(149, abs=2)
    assert loud_seconds(tmp_path / "piece.mp4") == pytest.approx((0.7, 1.7), abs=0.01)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe")
@pytest.mark.parametrize("exact", [False, True])
def test_ffprobe_finds_no_fault_in_a_piece(source: Path, tmp_path: Path, exact: bool) -> None:
    cut_video(source, tmp_path / "piece.mp4", 3.3, 6.0, exact=exact)
    wanted = ["-show_entries", "stream=codec_name,start_time", "-of", "csv=p=0", "-count_frames"]
    done = subprocess.run(
        ["ffprobe", "-v", "warning", *wanted, str(tmp_path / "piece.mp4")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    starts = dict(line.split(",")[:2] for line in done.stdout.split())
    assert float(starts["h264"]) == 0
    assert float(starts["aac"]) < 0.065  # a packet of sound


@pytest.mark.parametrize(
    ("form", "codec", "sound", "handled"),
    [
        ("matroska", "libx264", "aac", ("copied", "copied")),
        ("mpegts", "libx264", "aac", ("copied", "copied")),
        ("mov", "libx264", "pcm_s16le", ("copied", "encoded")),
        ("webm", "libvpx", "libopus", ("encoded", "encoded")),
        ("avi", "mpeg4", "pcm_s16le", ("encoded", "encoded")),
    ],
)
def test_what_mp4_cannot_hold_is_encoded_anew(
    tmp_path: Path, form: str, codec: str, sound: str, handled: tuple[str, str]
) -> None:
    source = write_sounding(tmp_path / "source", form, codec, sound)
    piece = cut_video(source, tmp_path / "piece.mp4", 4.5, 6.0)
    assert (piece.pictures, piece.sound) == handled
    start = 4.0 if handled[0] == "copied" else 4.5
    assert piece.start_seconds == pytest.approx(
        start, abs=0.065
    )  # a packet of sound may come before the pictures
    assert piece.end_seconds == pytest.approx(6.0, abs=0.15)
    shown = numbers(tmp_path / "piece.mp4")
    assert shown[:30] == pytest.approx(range(int(start * RATE), int(start * RATE) + 30), abs=4)
    assert loud_seconds(tmp_path / "piece.mp4")[1] == pytest.approx(5.0 - start, abs=0.08)
    assert probe(tmp_path / "piece.mp4").width == SIZE[0]


def test_a_key_picture_right_after_the_start_does_as_well(source: Path, tmp_path: Path) -> None:
    assert cut_video(source, tmp_path / "piece.mp4", 1.99, 3.0).start_seconds == pytest.approx(2.0)


def test_a_key_picture_far_before_the_start_is_not_gone_back_to(tmp_path: Path) -> None:
    pictures = (np.full((32, 32, 3), 100, np.uint8) for _ in range(160))
    write_video(tmp_path / "slow.mp4", pictures, 4)  # forty seconds, and one key picture
    assert cut_video(tmp_path / "slow.mp4", tmp_path / "near.mp4", 20.0, 22.0).pictures == "copied"
    piece = cut_video(tmp_path / "slow.mp4", tmp_path / "far.mp4", 35.0, 37.0)
    assert (piece.start_seconds, piece.pictures, piece.sound) == (35.0, "encoded", None)
    assert probe(tmp_path / "far.mp4").duration_seconds == pytest.approx(2.0, abs=0.01)


def test_a_picture_that_stands_for_long_is_cut_inside(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "slides.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, at in enumerate((0, 4000, 8000)):
            frame = av.VideoFrame.from_ndarray(grey(60 * number), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    cut_video(tmp_path / "slides.mp4", tmp_path / "piece.mp4", 3.0, 6.0, exact=True)
    shown = numbers(tmp_path / "piece.mp4")
    assert (shown[0], shown[24], shown[26], shown[-1]) == pytest.approx((0, 0, 60, 60), abs=2)
    assert probe(tmp_path / "piece.mp4").duration_seconds == pytest.approx(3.0, abs=0.05)


def test_odd_sides_become_even(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "odd.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "yuv444p"
        for number in range(50):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey(number)[:47, :63], format="rgb24")))
        out.mux(stream.encode(None))
    cut_video(tmp_path / "odd.mkv", tmp_path / "piece.mp4", 0.5, 1.0)
    info = probe(tmp_path / "piece.mp4")
    assert (info.width, info.height) == (62, 46)


def test_a_turned_video_stays_turned(source: Path, tmp_path: Path) -> None:
    content, one = source.read_bytes(), 1 << 16
    straight, turned = (struct.pack(">5i", *m) for m in ((one, 0, 0, 0, one), (0, one, 0, -one, 0)))
    at = content.index(straight, content.index(b"tkhd"))
    (tmp_path / "turned.mp4").write_bytes(content[:at] + turned + content[at + len(turned) :])
    for exact in (False, True):
        piece = cut_video(tmp_path / "turned.mp4", tmp_path / f"{exact}.mp4", 2.0, 3.0, exact=exact)
        info = probe(tmp_path / f"{exact}.mp4")
        assert (piece.pictures, info.width, info.height) == ("encoded" if exact else "copied", *SIZE[::-1])


def test_nothing_is_written_over_and_nothing_is_left_of_a_failure(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").write_text("mine")
    with pytest.raises(DataError, match="a file of this name already"):
        cut_video(source, tmp_path / "mine.mp4", 0.0, 1.0)
    assert (tmp_path / "mine.mp4").read_text() == "mine"
    with pytest.raises(DataError, match="is over at 8"):
        cut_video(source, tmp_path / "late.mp4", 90.0, 91.0)
    with pytest.raises(DataError, match="no such file"):
        cut_video(tmp_path / "gone.mp4", tmp_path / "new.mp4", 0.0, 1.0)
    with pytest.raises(ValueError, match="not a piece"):
        cut_video(source, tmp_path / "new.mp4", 2.0, 2.0)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.mp4"]
