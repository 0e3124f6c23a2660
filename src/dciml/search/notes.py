"""What a search cannot take from a sentence, said in plain words.

These are words that it never met, other languages, negation, and numbers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from dciml.features import Vocabulary, tokenize
from dciml.search.languages import foreign_words, languages_of

NEGATIONS = frozenset(
    ("no", "not", "without", "never", "none", "nobody", "nothing", "neither", "nor", "cannot")
)
COUNTS = frozenset(
    ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twice", "thrice")
)
CLOSE = 0.75  # share of letters in common, from which on a known word may have been meant


def notes_on(
    sentence: str, vocabulary: Vocabulary | None, num_pieces: Callable[[str], int] | None = None
) -> tuple[str, ...]:
    """Sentences for the user; () where there is nothing to say.

    Args:
        vocabulary: the words that mean something to the model; None: it takes its words from elsewhere.
        num_pieces: how many pieces the model's text encoder makes of a word; None: it has words, not pieces.

    >>> notes_on("a yelow dog without xyzzy", Vocabulary.build(["a yellow dog"]))
    ('Unknown words count by their letters only: yelow (yellow?), xyzzy.', 'Negation hardly counts: what ...')
    """
    words = tuple(dict.fromkeys(tokenize(sentence)))
    unknown = [] if vocabulary is None else unknown_words(words, vocabulary)
    notes = list(languages_of(words, vocabulary, num_pieces))
    if vocabulary is not None and unknown:
        known = [word for word in vocabulary.words if word.isalpha()]
        named = ", ".join(_with_nearest(word, known) for word in unknown)
        notes.append(f"Unknown words count by their letters only: {named}.")
    if any(word in NEGATIONS or word.endswith(("n't", "n’t")) for word in words):
        notes.append(
            "Negation hardly counts: what a sentence names is found, even if it says that it is absent."
        )
    if any(word in COUNTS or word.isdecimal() for word in words):
        notes.append("Numbers hardly count: the things are found, not how many there are.")
    return tuple(notes)


def unknown_words(words: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """The words that the vocabulary does not hold, in their order.

    Negations, numbers and words in another script have notes of their own.
    """
    foreign = {word for own in foreign_words(words, vocabulary).values() for word in own}
    return [
        word
        for word in words
        if word not in vocabulary
        and word not in foreign
        and word not in NEGATIONS
        and word not in COUNTS
        and not word.isdecimal()
    ]


def _with_nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=CLOSE)
    return f"{word} ({near[0]}?)" if near else word
