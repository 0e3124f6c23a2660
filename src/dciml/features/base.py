"""The small interfaces behind which every encoder stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dciml.errors import Where

if TYPE_CHECKING:  # media loads the video libraries
    from dciml.media import RGBFrame, VideoInfo

FloatRows = NDArray[np.float32]
Precision = Literal["bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "int8")
"""In which models may be told to compute: brain floats, or 8-bit whole numbers for weights and what they meet."""


@dataclass(frozen=True)
class EncodedSentence:
    """The features of one sentence, word by word.

    `words` has L entries (lower case, as in the vocabulary); `contextual` is (L, width): a word's row may depend on
    the other words; `static` is (L, static_width): a word's row depends on that word alone, so it can never give
    away its neighbours (the grounding branch reads only this one). `sentence` is (sentence_width,), a vector in a
    space shared with video rows, or None when there is no such space. All rows are L2-normalised.
    """

    words: tuple[str, ...]
    contextual: FloatRows
    static: FloatRows
    sentence: FloatRows | None = None


class TextEncoder(Protocol):
    """Turns sentences into word features. The same sentence always gives the same features, whatever the batch."""

    @property
    def name(self) -> str:
        """Names the encoder and its weights; saved with a model and checked on load."""

    @property
    def width(self) -> int:
        """Width of the contextual rows."""

    @property
    def static_width(self) -> int:
        """Width of the static rows."""

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        """Encode sentences. Raises DataError for one without a single word."""


@runtime_checkable
class PieceCounter(Protocol):
    """A text encoder that takes words apart into pieces that it knows."""

    def num_pieces(self, word: str) -> int:
        """How many pieces it makes of a word; as many as it has letters where it does not know the word at all."""


@dataclass(frozen=True)
class EncodedVideo:
    """The feature rows of one video, (T, width), one per fixed time step, and its duration."""

    rows: FloatRows
    duration_seconds: float


class RowBuilder(Protocol):
    """Takes the pictures of one video in the order of time and makes its rows; holds only a stretch of them."""

    def add(self, seconds: float, picture: RGBFrame) -> None:
        """Take the picture, (height, width, 3), that is on screen at a time; it is not changed."""

    def finish(self) -> FloatRows:
        """The rows, (T, width) with T = `num_rows(duration, rows_per_second)`; called once, after the last picture."""


class FrameEncoder(Protocol):
    """Turns the pictures of a video into feature rows, one video after another. Must pickle: processes get copies.

    Weights are loaded at the first video, not before, so that a copy is cheap.
    """

    @property
    def name(self) -> str:
        """Names the encoder, its version and its weights; saved in a store's manifest."""

    @property
    def width(self) -> int:
        """Width of the rows."""

    @property
    def rows_per_second(self) -> float:
        """How many rows a second of video gives."""

    @property
    def frames_per_second(self) -> float:
        """How many pictures a second it wants to see; 0: none (it reads something else than pictures)."""

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that it wants of the pictures of a video that is shown at the given size."""

    def begin(self, info: VideoInfo) -> RowBuilder:
        """Start a video. Raises DataError where the encoder cannot work on it."""


def num_rows(duration_seconds: float, rows_per_second: float) -> int:
    """How many rows a video has: its duration times the rate, rounded up (but for a microsecond), at least 1.

    >>> num_rows(5.0, 2.0), num_rows(5.1, 2.0), num_rows(0.01, 2.0)
    (10, 11, 1)
    """
    return max(1, math.ceil((duration_seconds - 1e-6) * rows_per_second))


class FeatureSource(Protocol):
    """Features of videos, in files of any form."""

    @property
    def path(self) -> Path:
        """Where they lie."""

    @property
    def encoder(self) -> str:
        """What made them."""

    @property
    def rows_per_second(self) -> float | None:
        """Rows a second; None when it varies or is not known."""

    @property
    def encoder_specs(self) -> tuple[str, ...]:
        """What makes such an encoder, as in a store's manifest; () where nothing is known of that."""

    @property
    def video_ids(self) -> tuple[str, ...]:
        """All videos."""

    @property
    def durations(self) -> Mapping[str, float]:
        """Seconds of the videos whose length the source states."""

    @property
    def splits(self) -> Mapping[str, str]:
        """The split of the videos for which the source names one."""

    def place(self, video_id: str) -> Where:
        """Where a video's rows lie, for an error message."""

    def origin(self, video_id: str) -> str | None:
        """What a store is to say of where the rows came from."""

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width, (T, D)."""

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows (T, D) of these videos, one after another. Raises DataError: they cannot be read."""
