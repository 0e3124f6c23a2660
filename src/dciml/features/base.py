"""The two small interfaces behind which every encoder stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatRows = NDArray[np.float32]


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


@dataclass(frozen=True)
class EncodedVideo:
    """The feature rows of one video, (T, width), one per fixed time step, and its duration."""

    rows: FloatRows
    duration_seconds: float


class VideoEncoder(Protocol):
    """Turns a video file into feature rows."""

    @property
    def name(self) -> str:
        """Names the encoder, its version and its weights; saved in a store's manifest."""

    @property
    def width(self) -> int:
        """Width of the rows."""

    @property
    def rows_per_second(self) -> float:
        """How many rows a second of video gives."""

    def encode(self, path: Path) -> EncodedVideo:
        """Encode a video file. Raises DataError for a file that cannot be decoded."""
