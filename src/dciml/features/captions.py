"""Captions as evidence: the text beside a video, on the same time grid as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dciml.errors import DataError
from dciml.features.base import FloatRows, TextEncoder, num_rows
from dciml.features.pooling import l2_normalize
from dciml.features.text import create_text_encoder
from dciml.features.timed_text import SUFFIXES, Caption, find_captions, read_captions
from dciml.features.vocabulary import UNKNOWN, Vocabulary, tokenize
from dciml.media import RGBFrame, VideoInfo

_MAX_WORDS = 256  # captions are longer than queries; no word of theirs is to be lost
_NO_WORDS = Vocabulary(
    (UNKNOWN,), (0,), (1.0,)
)  # features must not depend on the sentences of a training set


class CaptionEncoder:
    """A `FrameEncoder` that looks at no picture: a row is the mean of the captions that overlap it, of length 1.

    A caption's vector is the text encoder's own sentence vector, or the mean of its words' vectors where it has none.
    A row without a caption is zero: it is evidence of nothing, its cosine with everything is 0.

    Args:
        text_encoder: as `create_text_encoder` reads it; `words` knows captions by the letters of their words.
        rows_per_second: > 0.
        device: where the text encoder runs.
        required: a video without a caption file is an error; else its rows are zero.
    Raises:
        ConfigError: there is no such text encoder.
        DataError: its package or model is missing.
    """

    frames_per_second = 0.0

    def __init__(
        self, text_encoder: str, rows_per_second: float = 2.0, device: str = "cpu", required: bool = True
    ) -> None:
        if not rows_per_second > 0:
            raise ValueError(f"rows_per_second must be positive, not {rows_per_second}")
        self.rows_per_second, self._spec, self._device = rows_per_second, text_encoder, device
        self._required = required
        self._loaded: TextEncoder | None = None
        self.name = f"text:{self._encoder().name}"
        self.width = self._vectors(["word"]).shape[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # each process loads its own

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """As the video is; no picture is looked at."""
        return width, height

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        """The captions that it would read for a video."""
        captions = find_captions(path)
        return () if captions is None else (captions,)

    def begin(self, info: VideoInfo) -> CaptionRows:
        """Read the captions of a video.

        Raises:
            DataError: there are none and they are required, or they cannot be read.
        """
        path = find_captions(info.path)
        if path is None and self._required:
            names = ", ".join(info.path.with_suffix(suffix).name for suffix in SUFFIXES)
            what = f"there are no captions beside the video ({names}, also with a language such as .en.srt)"
            raise DataError(what, where=info.path, mend="put them there, or add an encoder of pictures")
        count = num_rows(info.duration_seconds, self.rows_per_second)
        return CaptionRows(self.rows_of([] if path is None else read_captions(path), count))

    def rows_of(self, captions: Sequence[Caption], count: int) -> FloatRows:
        """The rows (count, width) of captions; those after the last row are left out."""
        rows = np.zeros((count, self.width), dtype=np.float32)
        spoken = [caption for caption in captions if tokenize(caption.text)]
        if spoken:
            for caption, vector in zip(spoken, self._vectors([c.text for c in spoken]), strict=True):
                first = int(caption.start_seconds * self.rows_per_second + 1e-6)
                end = int(np.ceil(caption.end_seconds * self.rows_per_second - 1e-6))
                rows[first : max(end, first + 1)] += vector
        return l2_normalize(rows)  # the length of a sum is that of a mean

    def _vectors(self, texts: Sequence[str]) -> FloatRows:
        encoded = self._encoder().encode(texts)
        vectors = [e.contextual.mean(axis=0) if e.sentence is None else e.sentence for e in encoded]
        return l2_normalize(np.stack(vectors))

    def _encoder(self) -> TextEncoder:
        if self._loaded is None:
            self._loaded = create_text_encoder(self._spec, _NO_WORDS, _MAX_WORDS, self._device)
        return self._loaded


class CaptionRows:
    """Rows that are made already."""

    def __init__(self, rows: FloatRows) -> None:
        self._rows = rows

    def add(self, seconds: float, picture: RGBFrame) -> None:
        """Nothing: no picture is asked for."""

    def finish(self) -> FloatRows:
        """The rows, (T, width)."""
        return self._rows
