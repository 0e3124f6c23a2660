"""The project's own word encoder and the corpus of encoded sentences."""

from __future__ import annotations

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.encoders.words import WordEncoder
from dciml.features.vocabulary import Vocabulary

SENTENCES = ["a person opens a skateboard", "the dog runs", "a man sits and reads the newspaper"]
VOCABULARY = Vocabulary.build(SENTENCES)


def test_word_encoder_gives_unit_rows_one_a_word() -> None:
    encoded = WordEncoder(VOCABULARY).encode(["The zebra runs, and runs!"])[0]
    assert encoded.words == ("the", "zebra", "runs", "and", "runs")
    assert encoded.contextual.shape == (5, 300)
    assert encoded.contextual.dtype == np.float32
    assert encoded.static is encoded.contextual
    assert encoded.sentence is None
    np.testing.assert_allclose(np.linalg.norm(encoded.static, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(encoded.static[2], encoded.static[4])


def test_word_encoder_is_the_same_in_every_process() -> None:
    """Known words and unknown ones, as a process with another seed of `hash` once gave them."""
    rows = WordEncoder(VOCABULARY, width=6).encode(["the zebra runs"])[0].static
    the = [0.6770032, 0.3077287, 0.12309148, -0.3077287, 0.3077287, 0.49236593]
    zebra = [-0.5345225, 0.0, -0.5345225, -0.5345225, 0.26726124, -0.26726124]
    runs = [0.4553385, -0.4553385, 0.20340775, -0.04852305, -0.20340775, 0.7072693]
    np.testing.assert_allclose(rows, [the, zebra, runs], atol=1e-6)


def test_known_words_are_nearly_orthogonal() -> None:
    words = VOCABULARY.words[1:]
    rows = np.concatenate([e.static for e in WordEncoder(VOCABULARY, width=512).encode(words)])
    similarity = rows @ rows.T - np.eye(len(words))
    assert abs(similarity).max() < 0.3


def test_unknown_word_falls_near_its_known_relative() -> None:
    encoder = WordEncoder(VOCABULARY)
    unknown = encoder.encode(["skateboards"])[0].static[0]
    rows = np.concatenate([e.static for e in encoder.encode(VOCABULARY.words[1:])])
    nearest = VOCABULARY.words[1:][int(np.argmax(rows @ unknown))]
    assert nearest == "skateboard"
    assert rows[VOCABULARY.words.index("skateboard") - 1] @ unknown > 0.25


def test_word_encoder_does_not_depend_on_batch_mates() -> None:
    encoder = WordEncoder(VOCABULARY)
    together = encoder.encode(SENTENCES)
    for sentence, encoded in zip(SENTENCES, together, strict=True):
        np.testing.assert_array_equal(encoded.static, WordEncoder(VOCABULARY).encode([sentence])[0].static)


def test_word_encoder_name_tells_vocabularies_and_widths_apart() -> None:
    names = {
        WordEncoder(VOCABULARY).name,
        WordEncoder(VOCABULARY, width=64).name,
        WordEncoder(VOCABULARY, max_words=3).name,
        WordEncoder(Vocabulary.build(["other words"])).name,
    }
    assert len(names) == 4


def test_word_encoder_cuts_long_sentences_and_refuses_empty_ones() -> None:
    encoder = WordEncoder(VOCABULARY, max_words=3)
    assert encoder.encode(["one two three four"])[0].words == ("one", "two", "three")
    with pytest.raises(DataError, match="no word"):
        encoder.encode(["fine", "..."])


@pytest.mark.parametrize("width", [1, 2, 3])
def test_word_encoder_is_finite_at_tiny_widths(width: int) -> None:
    rows = np.concatenate(
        [e.static for e in WordEncoder(VOCABULARY, width=width).encode([*SENTENCES, "zebra ox"])]
    )
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_encoded_corpus_returns_what_the_encoder_gave() -> None:
    encoder = WordEncoder(VOCABULARY)
    corpus = EncodedCorpus.build(encoder, SENTENCES, chunk=2)
    assert len(corpus) == 3
    assert corpus.contextual is None
    assert (corpus.width, corpus.static_width, corpus.encoder_name) == (300, 300, encoder.name)
    assert len(corpus.static_table) == len(set(" ".join(SENTENCES).split()))
    for index, expected in enumerate(encoder.encode(SENTENCES)):
        got = corpus.get(index)
        assert got.words == expected.words
        np.testing.assert_array_equal(got.static, expected.static)
        np.testing.assert_array_equal(got.contextual, expected.contextual)
    with pytest.raises(IndexError):
        corpus.get(3)
    with pytest.raises(ValueError, match="no sentence"):
        EncodedCorpus.build(encoder, [])
