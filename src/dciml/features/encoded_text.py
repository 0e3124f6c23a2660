"""Many sentences encoded once and kept compactly, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dciml.features.base import EncodedSentence, FloatRows, TextEncoder


@dataclass(frozen=True)
class EncodedCorpus:
    """The features of N sentences with W words in all, of which U are distinct.

    Attributes:
        encoder_name: of the encoder that made them.
        distinct_words: (U), in order of first appearance.
        word_index: (W,), rows of `distinct_words` and `static_table`.
        offsets: (N + 1,): the words of sentence i are `offsets[i]:offsets[i + 1]`.
        static_table: (U, static_width) float32, one row a distinct word.
        contextual: (W, width) float16; None where the encoder's contextual rows are its static ones.
        sentences: (N, sentence_width) float32; None where the encoder has no sentence vector.
    """

    encoder_name: str
    distinct_words: tuple[str, ...]
    word_index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    static_table: FloatRows
    contextual: NDArray[np.float16] | None
    sentences: FloatRows | None

    @classmethod
    def build(cls, encoder: TextEncoder, sentences: Sequence[str], chunk: int = 4096) -> EncodedCorpus:
        """Encode the sentences, in order.

        Args:
            encoder: any text encoder.
            sentences: at least one.
            chunk: sentences held at full size at a time.
        Raises:
            DataError: a sentence has no word.
            ValueError: there is no sentence.
        """
        if not sentences:
            raise ValueError("there is no sentence to encode")
        collected = _Collector()
        for start in range(0, len(sentences), chunk):
            for encoded in encoder.encode(sentences[start : start + chunk]):
                collected.add(encoded)
        return cls(
            encoder_name=encoder.name,
            distinct_words=tuple(collected.rows),
            word_index=np.concatenate(collected.index),
            offsets=np.cumsum([0, *map(len, collected.index)], dtype=np.int64),
            static_table=np.stack(collected.static),
            contextual=np.concatenate(collected.contextual) if collected.contextual else None,
            sentences=np.stack(collected.sentences) if collected.sentences else None,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """Width of the contextual rows."""
        return int((self.static_table if self.contextual is None else self.contextual).shape[1])

    @property
    def static_width(self) -> int:
        """Width of the static rows."""
        return int(self.static_table.shape[1])

    def take(self, indices: Sequence[int]) -> EncodedCorpus:
        """Some of the sentences, in the given order."""
        spans = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        rows = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
        return replace(
            self,
            word_index=self.word_index[rows],
            offsets=np.cumsum([0, *map(len, spans)], dtype=np.int64),
            contextual=None if self.contextual is None else self.contextual[rows],
            sentences=None if self.sentences is None else self.sentences[list(indices)],
        )

    def get(self, index: int) -> EncodedSentence:
        """Sentence `index`; contextual rows are rounded to half precision (an error of at most 0.0005)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        words = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        word_index = self.word_index[words]
        static: FloatRows = self.static_table[word_index]
        return EncodedSentence(
            words=tuple(self.distinct_words[row] for row in word_index),
            contextual=static if self.contextual is None else self.contextual[words].astype(np.float32),
            static=static,
            sentence=None if self.sentences is None else self.sentences[index],
        )


class _Collector:
    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.static: list[FloatRows] = []
        self.index: list[NDArray[np.int64]] = []
        self.contextual: list[NDArray[np.float16]] = []
        self.sentences: list[FloatRows] = []

    def add(self, encoded: EncodedSentence) -> None:
        for word, row in zip(encoded.words, encoded.static, strict=True):
            if word not in self.rows:
                self.rows[word] = len(self.static)
                self.static.append(row.copy())  # not a view that keeps the whole sentence alive
        self.index.append(np.array([self.rows[word] for word in encoded.words], dtype=np.int64))
        if encoded.contextual is not encoded.static:
            self.contextual.append(encoded.contextual.astype(np.float16))
        if encoded.sentence is not None:
            self.sentences.append(encoded.sentence.copy())
