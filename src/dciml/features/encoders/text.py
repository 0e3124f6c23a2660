"""From the name of a text encoder to the encoder, and whether it shares a space with a store's rows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np

from dciml.errors import ConfigError
from dciml.features.base import EncodedSentence, FloatRows, TextEncoder
from dciml.features.encoders.words import WordEncoder, split_sentence
from dciml.features.pooling import l2_normalize
from dciml.features.vocabulary import UNKNOWN, Vocabulary

_MODEL = re.compile(r"@([0-9a-f]{12})(?:-|$)")  # the digest of a model's files
_OWN_KINDS = ("image:", "video:", "text:", "builtin-")


def same_space(store_encoder: str, text_encoder: str) -> bool | None:
    """Whether rows and sentence vectors come from the same model's space.

    Rows of `image:`, `video:` and `text:` share the space of the text encoder that is made of the same files. Rows of
    several encoders side by side share it with none.

    Args:
        store_encoder: as the manifest of the store names it.
        text_encoder: the encoder's name.
    Returns: None for features that were imported under a name of their own: then only the widths can tell.

    >>> same_space("image:clip@0123456789ab", "clip@0123456789ab-layer-1x30")
    True
    >>> same_space("builtin-visual-1", "clip@0123456789ab-layer-1x30")
    False
    >>> same_space("i3d", "clip@0123456789ab-layer-1x30") is None
    True
    """
    if not store_encoder.startswith(_OWN_KINDS):
        return None
    rows, sentences = _MODEL.findall(store_encoder), _MODEL.findall(text_encoder)
    return " + " not in store_encoder and len(rows) == 1 and rows == sentences


JOINT = " + "  # between encoders whose vectors stand end to end, in specs and in names
NO_WORDS = Vocabulary((UNKNOWN,), (0,), (1.0,))
"""Of an encoder whose vectors must not depend on the sentences of a training set."""


def sentence_vector(encoded: EncodedSentence) -> FloatRows:
    """A vector for the whole sentence, (width,), of length 1: the encoder's own, or else the mean of its words."""
    vector = encoded.contextual.mean(axis=0) if encoded.sentence is None else encoded.sentence
    unit: FloatRows = l2_normalize(vector[None])[0]
    return unit


class BlankTextEncoder:
    """Stands for rows that no sentence can be compared with: its sentence vector is zero.

    Args:
        width: of those rows.
    """

    def __init__(self, width: int, max_words: int) -> None:
        self.name, self.width, self.static_width = f"blank-{width}", width, width
        self._max_words = max_words

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        """Encode sentences. Raises DataError for one without a word."""
        split = [split_sentence(sentence, self._max_words) for sentence in sentences]
        rows = [np.zeros((len(words), self.width), dtype=np.float32) for words in split]
        zero = np.zeros(self.width, dtype=np.float32)
        return [EncodedSentence(words, row, row, zero) for words, row in zip(split, rows, strict=True)]


class JointTextEncoder:
    """Several text encoders for rows of several encoders side by side: their sentence vectors stand end to end.

    Each part's vector has length 1 by itself (zero for a blank part). Rows of single words are those of the first part
    that is not blank.
    """

    def __init__(self, parts: Sequence[TextEncoder]) -> None:
        self.parts = tuple(parts)
        self.name = JOINT.join(part.name for part in self.parts)
        knows = (place for place, part in enumerate(self.parts) if not isinstance(part, BlankTextEncoder))
        self._of_words = next(knows, 0)
        words = self.parts[self._of_words]
        self.width, self.static_width = words.width, words.static_width

    @property
    def knowing_parts(self) -> tuple[TextEncoder, ...]:
        """The parts to which words mean something: all but the blank ones."""
        return tuple(part for part in self.parts if not isinstance(part, BlankTextEncoder))

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        """Encode sentences. Raises DataError for one without a word."""
        columns = [part.encode(sentences) for part in self.parts]
        return [
            EncodedSentence(
                encoded[self._of_words].words,
                encoded[self._of_words].contextual,
                encoded[self._of_words].static,
                np.concatenate([sentence_vector(part) for part in encoded]),
            )
            for encoded in zip(*columns, strict=True)
        ]


_KINDS = ("words", "minilm", "transformers", "released", "vectors", "blank")


def create_text_encoder(
    spec: str, vocabulary: Vocabulary, max_words: int = 30, device: str = "cpu"
) -> TextEncoder:
    """Make the encoder that `spec` names.

    Args:
        spec: `words` or `words:WIDTH` (the project's own), `minilm` (the package of the extra of that name),
            `transformers:FOLDER-OR-HUB-NAME`, `released:FOLDER` (query features that came with a release),
            `vectors:FOLDER` (a table of word vectors that came with one), `blank:WIDTH` (nothing: for rows that no
            sentence can be compared with), or several of these with ` + ` between them, whose words then do not depend
            on the vocabulary.
        vocabulary: of the training sentences; the project's own word rows depend on it.
        max_words: later words of a sentence are dropped.
        device: where a transformer runs.
    Raises:
        ConfigError: the spec is not one of these.
        DataError: the encoder's package or model is missing.

    >>> create_text_encoder("words:16", Vocabulary.build(["a dog"])).width
    16
    """
    if JOINT in spec:
        parts = spec.split(JOINT)
        return JointTextEncoder([create_text_encoder(part, NO_WORDS, max_words, device) for part in parts])
    kind, _, argument = spec.partition(":")
    if kind == "blank" and argument.isdecimal() and 0 < int(argument) < 10**6:
        return BlankTextEncoder(int(argument), max_words)
    if kind == "words" and (
        not argument or (argument.isdecimal() and len(argument) < 10 and int(argument) > 0)
    ):
        return WordEncoder(vocabulary, int(argument or 300), max_words)
    if spec == "minilm":
        from dciml.features.encoders.transformers_text import minilm

        return minilm(max_words, device)
    if kind == "transformers" and argument:
        from dciml.features.encoders.transformers_text import TransformersTextEncoder

        return TransformersTextEncoder(argument, max_words=max_words, device=device)
    if kind == "released" and argument:
        from dciml.features.encoders.query_features import QueryFeatureEncoder

        return QueryFeatureEncoder(argument, vocabulary, max_words)
    if kind == "vectors" and argument:
        from dciml.features.encoders.word_vectors import WordVectorEncoder

        return WordVectorEncoder(argument, vocabulary, max_words)
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    hint = f"; did you mean {near[0]}?" if near and near[0] != kind else ""
    raise ConfigError(
        f"unknown text encoder {spec!r}: use words, words:WIDTH, minilm, transformers:FOLDER, released:FOLDER or "
        f"vectors:FOLDER{hint}"
    )
