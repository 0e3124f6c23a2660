"""Encoders side by side on one file: one decoding pass, one grid, each with pictures of its own size and rate."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dciml.errors import ConfigError
from dciml.features.base import FloatRows, num_rows
from dciml.features.encoders import joined
from dciml.features.encoders.joined import JoinedEncoder, encode_video
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.media import RGBFrame, VideoInfo, write_video


@dataclass(frozen=True)
class MeanColour:
    """The mean colour of the pictures of each row; pictures half as wide and high as the video."""

    name: str = "mean-colour"
    width: int = 3
    rows_per_second: float = 2.0
    frames_per_second: float = 3.0

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        return width // 2, height // 2

    def begin(self, info: VideoInfo) -> MeanColourRows:
        return MeanColourRows(info, self.rows_per_second)


class MeanColourRows:
    def __init__(self, info: VideoInfo, rate: float) -> None:
        self.shape, self.rate = (info.height // 2, info.width // 2, 3), rate
        self.sums = np.zeros((num_rows(info.duration_seconds, rate), 4), dtype=np.float32)

    def add(self, seconds: float, picture: RGBFrame) -> None:
        assert picture.shape == self.shape
        self.sums[int(seconds * self.rate)] += [*picture.mean(axis=(0, 1)), 1]

    def finish(self) -> FloatRows:
        return self.sums[:, :3] / np.maximum(self.sums[:, 3:], 1)


@dataclass(frozen=True)
class Clock:
    """Sees no picture; each row holds its own time."""

    name: str = "clock"
    width: int = 1
    rows_per_second: float = 2.0
    frames_per_second: float = 0.0

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        raise AssertionError("it sees no picture")

    def begin(self, info: VideoInfo) -> ClockRows:
        return ClockRows(num_rows(info.duration_seconds, self.rows_per_second) / 2)


@dataclass
class ClockRows:
    seconds: float

    def add(self, seconds: float, picture: RGBFrame) -> None:
        raise AssertionError("it sees no picture")

    def finish(self) -> FloatRows:
        return np.arange(0, self.seconds, 0.5, dtype=np.float32)[:, None]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("joined") / "v.mp4"
    pictures = [np.full((72, 96, 3), 3 * k % 250, dtype=np.uint8) for k in range(51)]
    write_video(path, pictures, 10, crf=10)
    return path


def test_joined_rows_are_those_of_the_parts(video: Path) -> None:
    parts = (BuiltinVisualEncoder(), MeanColour(), Clock())
    encoder = JoinedEncoder(parts)
    assert (encoder.name, encoder.width) == ("builtin-visual-1 + mean-colour + clock", 585)
    found = encode_video(video, encoder)
    assert found.duration_seconds == pytest.approx(5.1)
    assert found.rows.shape == (11, 585)
    alone = [encode_video(video, part).rows for part in parts]
    np.testing.assert_array_equal(found.rows, np.concatenate(alone, axis=1))


def test_a_joined_video_is_decoded_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[Path] = []
    decode = joined.iterate_samples

    def count(path: Path, *details: object) -> object:
        passes.append(path)
        return decode(path, *details)

    monkeypatch.setattr(joined, "iterate_samples", count)
    encode_video(video, JoinedEncoder([BuiltinVisualEncoder(), MeanColour()]))
    encode_video(video, Clock())
    assert passes == [video]


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"builtin-visual-1: 1, mean-colour: 2"):
        JoinedEncoder([BuiltinVisualEncoder(1.0), MeanColour()])
    with pytest.raises(ConfigError, match="each comes once"):
        JoinedEncoder([MeanColour(), MeanColour()])
    with pytest.raises(ConfigError, match="each comes once"):
        JoinedEncoder([])


def test_rows_off_the_grid_are_refused(video: Path) -> None:
    with pytest.raises(ValueError, match=r"mean-colour gave rows of the shape \(11, 3\), not \(11, 4\)"):
        encode_video(video, MeanColour(width=4))


def test_a_joined_encoder_pickles() -> None:
    encoder = JoinedEncoder([BuiltinVisualEncoder(1.0), Clock(rows_per_second=1.0)])
    assert pickle.loads(pickle.dumps(encoder)).name == encoder.name
