"""What a search cannot take from a sentence is said, and nothing else."""

from __future__ import annotations

import pytest

from dciml.features.vocabulary import Vocabulary
from dciml.search.notes import notes_on

KNOWN = Vocabulary.build(["a yellow dog runs over the green hill", "the dog sleeps"])


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("a yellow dog sleeps", ()),
        ("a yelow dog", ("yelow (yellow?)",)),
        ("xyzzy sleeps and xyzzy runs", ("only: xyzzy, and.",)),
        ("the dog does not run", ("Negation", "run (runs?)")),
        ("the hill without the dog", ("Negation",)),
        ("two yellow dogs", ("Numbers", "dogs (dog?)")),
        ("3 hills", ("Numbers",)),
    ],
)
def test_notes_name_what_does_not_count(sentence: str, said: tuple[str, ...]) -> None:
    notes = notes_on(sentence, KNOWN)
    assert bool(notes) == bool(said)
    for words in said:
        assert any(words in note for note in notes), notes


def test_models_with_words_of_their_own_know_them_all() -> None:
    assert notes_on("xyzzy quux", None) == ()
