"""Sentences → words → ids: the one tokenizer of the project and the vocabulary of the training sentences."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.files import read_json, write_json
from dciml.types import TrainingPair

UNKNOWN = "<unk>"
CONTENT_WORD_WEIGHT = 2.0  # nouns, verbs, adjectives and adverbs; METHOD §2.2
OTHER_WORD_WEIGHT = 1.0
_CONTENT_TAGS = ("NN", "VB", "JJ", "RB")  # prefixes of the Penn Treebank tags
_FORMAT_VERSION = 1


def tokenize(sentence: str) -> tuple[str, ...]:
    """Lower-case words of letters, digits and inner apostrophes; everything else separates.

    Combining marks belong to their letter, so that scripts which write vowels as marks stay whole.

    >>> tokenize("She doesn't open the T-shirt's box, 2 times.")
    ('she', "doesn't", 'open', 'the', 't', "shirt's", 'box', '2', 'times')
    >>> tokenize("…!")
    ()
    """
    return tuple(word for word, _, _ in locate_words(unicodedata.normalize("NFC", sentence)))


def locate_words(text: str) -> list[tuple[str, int, int]]:
    """The words of a text in Unicode's composed form (NFC), each with the place [start, end) where it stands.

    >>> locate_words("A dog's life.")
    [('a', 0, 1), ("dog's", 2, 7), ('life', 8, 12)]
    """
    found = []
    # One character in, one out: places in the mapped text are places in `text`.
    for match in re.finditer(r"[^ ]+", "".join(map(_word_character, text))):
        piece = match.group()
        start = match.start() + len(piece) - len(piece.lstrip("'"))
        word = piece.strip("'")
        if _has_letter(word):
            found.append((unicodedata.normalize("NFC", word.lower()), start, start + len(word)))
    return found


@lru_cache(maxsize=4096)
def _word_character(character: str) -> str:
    if character in "'’ʼ":
        return "'"
    return character if unicodedata.category(character)[0] in "LNM" else " "


def _has_letter(word: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in word)


@dataclass(frozen=True)
class Vocabulary:
    """The known words; id 0 stands for every unknown one.

    `words[id]` is the word, `counts[id]` how often the training sentences have it (id 0: all that did not
    fit), `importances[id]` its weight in the reconstruction loss: one number a word, whatever the batch.

    >>> vocabulary = Vocabulary.build(["a dog runs", "a dog sits"], size=2)
    >>> vocabulary.words, vocabulary.ids(["dog", "runs"]).tolist(), vocabulary.weights(["dog", "a"]).tolist()
    (('<unk>', 'a', 'dog'), [2, 0], [2.0, 1.0])
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    importances: tuple[float, ...]

    @classmethod
    def build(cls, sentences: Iterable[str], size: int = 8000) -> Vocabulary:
        """The `size` most frequent words (ties: alphabetical) of the *training* sentences.

        Raises:
            DataError: the sentences hold no word at all.
        """
        if size < 1:
            raise ValueError(f"a vocabulary needs at least one word, not {size}")
        tokenized = [words for words in map(tokenize, sentences) if words]
        counts = Counter(word for words in tokenized for word in words)
        if not counts:
            raise DataError("the training sentences hold no word", mend="check the sentences of the data set")
        kept = sorted(counts, key=lambda word: (-counts[word], word))[:size]
        content = _content_words(tokenized, set(kept))
        unknown = sum(counts.values()) - sum(counts[word] for word in kept)
        weights = [CONTENT_WORD_WEIGHT if word in content else OTHER_WORD_WEIGHT for word in kept]
        return cls(
            (UNKNOWN, *kept), (unknown, *(counts[word] for word in kept)), (OTHER_WORD_WEIGHT, *weights)
        )

    def __len__(self) -> int:
        """Number of ids, the unknown word's included."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._id_of and word != UNKNOWN

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def _importance_table(self) -> NDArray[np.float32]:
        return np.asarray(self.importances, dtype=np.float32)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change whenever a word or its order does."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:12]

    def ids(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Ids (L,) of tokenized words; 0 for unknown ones."""
        return np.fromiter((self._id_of.get(word, 0) for word in words), dtype=np.int64, count=len(words))

    def weights(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Importance (L,): 2 for nouns, verbs, adjectives and adverbs, 1 for other and for unknown words."""
        weights: NDArray[np.float32] = self._importance_table[self.ids(words)]
        return weights

    def coverage(self, sentences: Iterable[str]) -> float:
        """Share of the sentences' running words that are known, in [0, 1]; 1 where there is no word."""
        known = total = 0
        for sentence in sentences:
            words = tokenize(sentence)
            known, total = known + sum(word in self for word in words), total + len(words)
        return known / total if total else 1.0

    def check_training_pairs(self, pairs: Iterable[TrainingPair]) -> None:
        """Refuse sentences that reconstruction could learn nothing from.

        Search takes such sentences: an encoder can have features for words outside the vocabulary.

        Raises:
            DataError: a sentence has no word, or only unknown ones; the message names the query.
        """
        for pair in pairs:
            words = tokenize(pair.sentence)
            if not words:
                raise DataError(
                    f"query {pair.query_id}: the sentence is empty", mend="write it, or drop the query"
                )
            if not any(word in self for word in words):
                raise DataError(
                    f"query {pair.query_id}: none of its words ({', '.join(words)}) is in the vocabulary",
                    mend="raise the vocabulary's size, or drop the query",
                )

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        write_json(
            path,
            {
                "version": _FORMAT_VERSION,
                "words": list(self.words),
                "counts": list(self.counts),
                "importances": list(self.importances),
            },
        )

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            DataError: missing, malformed or inconsistent; the message names the field.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.get("version") != _FORMAT_VERSION:
            raise _damaged(path, "version", f"this is not a vocabulary of version {_FORMAT_VERSION}")
        words = _checked_list(path, content, "words", str)
        counts = _checked_list(path, content, "counts", int)
        importances = _checked_list(path, content, "importances", (int, float))
        if not words or words[0] != UNKNOWN or len(set(words)) != len(words):
            raise _damaged(path, "words", f"the words must be distinct and begin with {UNKNOWN}")
        if not len(words) == len(counts) == len(importances):
            raise _damaged(path, "counts", "words, counts and importances differ in length")
        if min(counts) < 0 or not all(0 < weight < float("inf") for weight in importances):
            raise _damaged(path, "importances", "counts must be ≥ 0, importances > 0 and finite")
        return cls(tuple(words), tuple(counts), tuple(map(float, importances)))


@cache
def _tagger() -> Callable[..., list[tuple[str, str]]]:
    """What is behind textblob's PatternTagger (offline): takes words already split, gives (word, tag)."""
    from textblob.en import tag  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # textblob never closes the lexicon that it reads here
        tag("warm up", tokenize=False)
    function: Callable[..., list[tuple[str, str]]] = tag
    return function


def _content_words(tokenized: Sequence[tuple[str, ...]], kept: set[str]) -> set[str]:
    """The kept words that are content words in most of their occurrences."""
    tag = _tagger()
    votes: Counter[str] = Counter()
    for words in tokenized:
        # tokenize=False keeps the tags one to one with our words.
        for word, (_, part) in zip(words, tag(" ".join(words), tokenize=False), strict=True):
            if word in kept:
                votes[word] += 1 if part.startswith(_CONTENT_TAGS) else -1
    return {word for word, vote in votes.items() if vote > 0}


def _checked_list(
    path: Path, content: dict[str, Any], field: str, kind: type | tuple[type, ...]
) -> list[Any]:
    value = content.get(field)
    if not isinstance(value, list) or not all(isinstance(v, kind) and not isinstance(v, bool) for v in value):
        raise _damaged(path, field, "missing, or not a list of the right type")
    return value


def _damaged(path: Path, field: str, what: str) -> DataError:
    return DataError(what, where=Where(path, field=field), mend="write the vocabulary again by training")
