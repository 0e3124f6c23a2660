from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dciml.features.base import EncodedSentence
from dciml.features.encoded_text import encode_cached
from dciml.features.encoders.words import WordEncoder
from dciml.features.vocabulary import Vocabulary

SENTENCES = ["a dog runs", "a red cat sits"]


class CountingEncoder(WordEncoder):
    """Counts how often it is asked."""

    calls = 0

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        self.calls += 1
        return super().encode(sentences)


def make_encoder() -> CountingEncoder:
    return CountingEncoder(Vocabulary.build(SENTENCES), 16)


def test_second_call_reads_the_same_features_without_encoding(tmp_path: Path) -> None:
    first = encode_cached(make_encoder(), SENTENCES, tmp_path)
    encoder = make_encoder()
    second = encode_cached(encoder, SENTENCES, tmp_path)
    assert encoder.calls == 0
    for i in range(len(SENTENCES)):
        assert second.get(i).words == first.get(i).words
        assert np.array_equal(second.get(i).static, first.get(i).static)


def test_other_sentences_are_encoded(tmp_path: Path) -> None:
    encode_cached(make_encoder(), SENTENCES, tmp_path)
    encoder = make_encoder()
    assert encode_cached(encoder, SENTENCES[::-1], tmp_path).get(0).words[-1] == "sits"
    assert encoder.calls == 1


def test_damaged_file_is_made_anew(tmp_path: Path) -> None:
    encode_cached(make_encoder(), SENTENCES, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"nothing")
    encoder = make_encoder()
    encode_cached(encoder, SENTENCES, tmp_path)
    encode_cached(encoder, SENTENCES, tmp_path)
    assert encoder.calls == 1


def test_some_sentences_can_be_taken(tmp_path: Path) -> None:
    whole = encode_cached(make_encoder(), SENTENCES, tmp_path)
    turned = whole.take([1, 0])
    assert [turned.get(i).words for i in range(2)] == [whole.get(i).words for i in (1, 0)]
    assert np.array_equal(turned.get(0).contextual, whole.get(1).contextual)
