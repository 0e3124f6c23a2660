"""The tokenizer and the vocabulary."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.vocabulary import UNKNOWN, Vocabulary, tokenize
from dciml.types import TrainingPair

SENTENCES = ["A person opens the door.", "The person closes a red door quickly", "a dog"]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Person's  dog—runs", ("person's", "dog", "runs")),
        ("'quoted' it’s", ("quoted", "it's")),
        ("snake_case 3D", ("snake", "case", "3d")),
        ("Über ÉCOLE naïve", ("über", "école", "naïve")),
        ("кошка спит", ("кошка", "спит")),
        ("हिन्दी", ("हिन्दी",)),
        ("", ()),
        (" .,!' ", ()),
    ],
)
def test_tokenize_splits_words(sentence: str, words: tuple[str, ...]) -> None:
    assert tokenize(sentence) == words


def test_tokenize_gives_composed_and_decomposed_letters_the_same_word() -> None:
    assert tokenize("cafe\u0301") == tokenize("caf\u00e9")


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=60)
def test_tokenize_is_stable_on_its_own_words(text: str) -> None:
    words = tokenize(text)
    assert all(word and not word.isspace() for word in words)
    assert tokenize(" ".join(words)) == words


def test_vocabulary_keeps_the_most_frequent_words() -> None:
    vocabulary = Vocabulary.build(SENTENCES, size=4)
    assert vocabulary.words == (UNKNOWN, "a", "door", "person", "the")
    counted = Counter(word for sentence in SENTENCES for word in tokenize(sentence))
    assert vocabulary.counts == (sum(counted.values()) - 9, 3, 2, 2, 2)
    assert len(vocabulary) == 5


def test_vocabulary_does_not_depend_on_the_order_of_sentences() -> None:
    assert Vocabulary.build(SENTENCES) == Vocabulary.build(SENTENCES[::-1])


def test_ids_are_zero_for_unknown_words_only() -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    ids = vocabulary.ids(["door", "zebra", UNKNOWN, "dog"])
    assert ids.dtype.name == "int64"
    assert [vocabulary.words[i] for i in ids] == ["door", UNKNOWN, UNKNOWN, "dog"]
    assert UNKNOWN not in vocabulary


def test_weights_are_two_for_content_words() -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    weights = vocabulary.weights(["person", "opens", "the", "red", "door", "quickly", "a", "zebra"])
    assert weights.tolist() == [2, 2, 1, 2, 2, 2, 1, 1]


def test_coverage_counts_running_words() -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    assert vocabulary.coverage(["a red zebra", "dog"]) == 0.75
    assert vocabulary.coverage([]) == 1.0


def test_check_training_pairs_names_the_query() -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    vocabulary.check_training_pairs([TrainingPair("q0", "v", "zebra dog")])
    with pytest.raises(DataError, match=r"q7.*zebra, sleeps.*vocabulary"):
        vocabulary.check_training_pairs([TrainingPair("q7", "v", "Zebra sleeps")])
    with pytest.raises(DataError, match=r"q8.*empty"):
        vocabulary.check_training_pairs([TrainingPair("q8", "v", "...")])


def test_build_refuses_sentences_without_words() -> None:
    with pytest.raises(DataError, match="no word"):
        Vocabulary.build(["", "?!"])
    with pytest.raises(ValueError, match="at least one"):
        Vocabulary.build(SENTENCES, size=0)


def test_vocabulary_survives_saving(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(SENTENCES)
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary
    assert Vocabulary.load(tmp_path / "vocabulary.json").digest == vocabulary.digest
    assert Vocabulary.build(["other words"]).digest != vocabulary.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "version"),
        ({"words": ["<unk>", "a", "a"]}, "distinct"),
        ({"words": ["b", "a", "c"]}, "begin with"),
        ({"words": [UNKNOWN]}, "length"),
        ({"counts": [0, "1", 2]}, "counts"),
        ({"counts": [0, -1, 2]}, "≥ 0"),
        ({"importances": [1, 0, 2]}, "> 0"),
        ({"importances": None}, "importances"),
    ],
)
def test_load_refuses_a_damaged_file(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary.build(["a dog"]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        Vocabulary.load(path)
