"""The project's own word encoder: needs no download, gives the same features on every machine."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from dciml.errors import DataError
from dciml.features.base import EncodedSentence, FloatRows
from dciml.features.vocabulary import Vocabulary, tokenize

_VERSION = 1
_NGRAM_LENGTHS = (3, 4, 5)
_NGRAM_SHARE = 0.6  # of a known word's own vector: it stays mostly itself, yet its unknown relatives are near


def split_sentence(sentence: str, max_words: int) -> tuple[str, ...]:
    """The first `max_words` words of a sentence.

    Raises:
        DataError: the sentence has no word.
    """
    words = tokenize(sentence)[:max_words]
    if not words:
        raise DataError(f"the sentence {sentence!r} has no word", mend="write at least one word")
    return words


class OneWordRows(ABC):
    """A text encoder whose rows depend on one word each, so that `contextual` and `static` are the same array.

    There is no sentence vector.

    Args:
        name: of the encoder. `width` is that of a row; words of a sentence after the first `max_words` are dropped.
    """

    def __init__(self, name: str, width: int, max_words: int) -> None:
        self._name, self._width, self._max_words = name, width, max_words

    @property
    def name(self) -> str:
        """Names the encoder and all that its rows depend on."""
        return self._name

    @property
    def width(self) -> int:
        """Width of the contextual rows."""
        return self._width

    @property
    def static_width(self) -> int:
        """Width of the static rows: the same."""
        return self._width

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        """Encode sentences. Raises DataError for one without a word."""
        return [self._encode_one(split_sentence(sentence, self._max_words)) for sentence in sentences]

    def _encode_one(self, words: tuple[str, ...]) -> EncodedSentence:
        rows = np.stack([self.row(word) for word in words])  # (L, width)
        return EncodedSentence(words, rows, rows)

    @abstractmethod
    def row(self, word: str) -> FloatRows:
        """The row of a word, (width,), of length 1."""


class WordEncoder(OneWordRows):
    """Hashed word features: a pseudo-random direction for each known word, plus one for each of its n-grams.

    Words of the training vocabulary are near-orthogonal, so that a linear layer can tell them apart; a word
    outside it has only its character n-grams (3 to 5, with boundary marks) and falls near known words that
    share them.

    Args:
        vocabulary: the words of the training sentences.
        width: of a row.
        max_words: later words of a sentence are dropped.

    >>> encoder = WordEncoder(Vocabulary.build(["a dog runs"]), width=8)
    >>> encoded = encoder.encode(["A dog!"])[0]
    >>> encoded.words, encoded.contextual.shape, encoded.contextual is encoded.static
    (('a', 'dog'), (2, 8), True)
    """

    def __init__(self, vocabulary: Vocabulary, width: int = 300, max_words: int = 30) -> None:
        if width < 1 or max_words < 1:
            raise ValueError(f"width and max_words must be positive, not {width} and {max_words}")
        super().__init__(f"words-v{_VERSION}-{width}x{max_words}-{vocabulary.digest}", width, max_words)
        self._vocabulary = vocabulary
        self.vocabulary = vocabulary if len(vocabulary) > 1 else None
        """The words with directions of their own; None: there are none, and all words count by their letters."""
        self._rows: dict[str, FloatRows] = {}

    def row(self, word: str) -> FloatRows:
        """A known word's own direction and those of its n-grams; an unknown one's n-grams alone."""
        row = self._rows.get(word)
        if row is None:
            row = _unit(np.sum([_signs("ngram:" + ngram, self._width) for ngram in _ngrams(word)], axis=0))
            if word in self._vocabulary:
                row = _unit(_unit(_signs("word:" + word, self._width)) + _NGRAM_SHARE * row)
            row = row.astype(np.float32)
            if word in self._vocabulary:  # a cache of unknown words would grow for ever in a search service
                self._rows[word] = row
        return row


def _ngrams(word: str) -> list[str]:
    marked = f"<{word}>"
    return [
        marked[start : start + length]
        for length in _NGRAM_LENGTHS
        for start in range(max(len(marked) - length + 1, 0))
    ]


def _signs(key: str, width: int) -> FloatRows:
    """A pseudo-random vector of +1 and −1: bits of a hash, which no new version of NumPy can change."""
    bits = np.frombuffer(hashlib.shake_128(key.encode()).digest((width + 7) // 8), dtype=np.uint8)
    return np.unpackbits(bits)[:width].astype(np.float32) * 2 - 1


def _unit(row: FloatRows) -> FloatRows:
    norm = float(np.linalg.norm(row))
    if norm == 0:  # the signs of an even number of n-grams can cancel at tiny widths
        return np.full_like(row, 1 / np.sqrt(len(row)))
    unit: FloatRows = row / norm
    return unit
