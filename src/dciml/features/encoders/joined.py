"""One or several encoders on one video file, in one decoding pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dciml.errors import ConfigError
from dciml.features.base import EncodedVideo, FloatRows, FrameEncoder, num_rows
from dciml.media import Sampling, iterate_samples, probe


@dataclass(frozen=True)
class JoinedEncoder:
    """Several encoders on one time grid: their rows stand side by side, in the order of `parts`.

    Each part still sees pictures of its own size and rate, so its columns are those that it would give alone.

    Raises:
        ConfigError: no part, one twice, or parts that differ in their rows a second.
    """

    parts: tuple[FrameEncoder, ...]

    def __init__(self, parts: Sequence[FrameEncoder]) -> None:
        object.__setattr__(self, "parts", tuple(parts))
        names = [part.name for part in self.parts]
        rates = {part.rows_per_second for part in self.parts}
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"encoders can be joined when each comes once, not {names}")
        if len(rates) > 1:
            found = ", ".join(f"{part.name}: {part.rows_per_second:g}" for part in self.parts)
            raise ConfigError(
                f"encoders must give equally many rows a second to be joined; they give {found}"
            )

    @property
    def name(self) -> str:
        """The names of the parts, with a plus between them."""
        return " + ".join(part.name for part in self.parts)

    @property
    def width(self) -> int:
        """The widths of the parts, summed."""
        return sum(part.width for part in self.parts)

    @property
    def rows_per_second(self) -> float:
        """How many rows a second of video gives."""
        return self.parts[0].rows_per_second


VideoEncoder = FrameEncoder | JoinedEncoder
"""What turns a video file into rows, by `encode_video`."""


def encode_video(
    path: Path, encoder: VideoEncoder, on_progress: Callable[[float, int], None] | None = None
) -> EncodedVideo:
    """Encode a video file; it is decoded once, and no more of it is held than the encoders hold.

    Args:
        on_progress: told at every picture which part of the duration is done, and how many pictures that were.
    Returns: rows (T, width), T = `num_rows(duration, rows_per_second)`, and the file's duration.
    Raises:
        DataError: the file cannot be decoded, or an encoder cannot work on it.
    """
    parts = encoder.parts if isinstance(encoder, JoinedEncoder) else (encoder,)
    info = probe(path, None if on_progress is None else lambda: on_progress(0.0, 0))
    builders = [part.begin(info) for part in parts]
    seeing = [number for number, part in enumerate(parts) if part.frames_per_second > 0]
    samplings = [
        Sampling(parts[number].frames_per_second, parts[number].picture_size(info.width, info.height))
        for number in seeing
    ]
    if samplings:
        samples = iterate_samples(path, samplings)
        for count, (sampling, seconds, picture) in enumerate(samples, start=1):
            builders[seeing[sampling]].add(seconds, picture)
            if on_progress is not None:
                on_progress(min(seconds / info.duration_seconds, 1.0), count)
    rows = [builder.finish() for builder in builders]
    _check_shapes(rows, parts, num_rows(info.duration_seconds, encoder.rows_per_second), path)
    return EncodedVideo(np.concatenate(rows, axis=1) if len(rows) > 1 else rows[0], info.duration_seconds)


def _check_shapes(rows: Sequence[FloatRows], parts: Sequence[FrameEncoder], count: int, path: Path) -> None:
    for part, some in zip(parts, rows, strict=True):
        if some.shape != (count, part.width):
            raise ValueError(
                f"{part.name} gave rows of the shape {some.shape}, not {(count, part.width)}: {path}"
            )
