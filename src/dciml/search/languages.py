"""Whether a sentence is in another language than the words that a text encoder knows, as far as these tell."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from dciml.features import Vocabulary

FEW_SHARE, FEWEST_WORDS = 0.25, 3
"""A sentence of so many words, of which no more than this share is known, may be in another language."""
LETTER_BY_LETTER = 0.75
"""Pieces a letter from which on a text encoder has hardly met a word; of a word that it knows it makes one or two."""
SHORTEST_LETTERS = 4  # of all words in one script together: shorter ones say little
NUM_NAMED = 3


def languages_of(
    words: Sequence[str],
    vocabulary: Vocabulary | None,
    num_pieces: Callable[[str], int] | None = None,
) -> tuple[str, ...]:
    """Sentences for the user; () where nothing speaks for another language.

    Args:
        words: of the sentence, tokenized. vocabulary: the words that mean something to the model; None: not these.
        num_pieces: how many pieces the model's text encoder makes of a word; None: it has words, not pieces.

    >>> languages_of(("собака", "бежит"), Vocabulary.build(["a dog runs"]))
    ('The model knows no word in Cyrillic letters: собака and бежит mean nothing to it.',)
    """
    if vocabulary is not None and len(vocabulary) > 1:
        return _by_words(words, vocabulary)
    return () if num_pieces is None else _by_pieces(words, num_pieces)


def script_of(word: str) -> str:
    """The script of a word's first letter, as Unicode names it; "" of numbers.

    >>> script_of("собака"), script_of("naïve"), script_of("犬"), script_of("2")
    ('Cyrillic', 'Latin', 'Chinese', '')
    """
    letter = next((sign for sign in word if sign.isalpha()), None)
    if letter is None:
        return ""
    name = unicodedata.name(letter, "unknown").split()[0].split("-")[0].capitalize()
    return {"Cjk": "Chinese", "Fullwidth": "Latin", "Halfwidth": "Katakana"}.get(name, name)


def foreign_words(words: Sequence[str], vocabulary: Vocabulary) -> dict[str, list[str]]:
    """The words in scripts in which the vocabulary has none, by script."""
    known = _scripts(vocabulary.words[1:])
    found: dict[str, list[str]] = {}
    for word in words:
        if (script := script_of(word)) and script not in known:
            found.setdefault(script, []).append(word)
    return found


@lru_cache(maxsize=8)
def _scripts(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(script_of, words))


def _by_words(words: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    foreign = foreign_words(words, vocabulary)
    notes = [
        f"The model knows no word in {script} letters: {_listed(own)} "
        f"{'means' if len(own) == 1 else 'mean'} nothing to it."
        for script, own in foreign.items()
    ]
    asked = [word for word in words if word.isalpha() and script_of(word) not in foreign]
    num_known = sum(word in vocabulary for word in asked)
    if len(asked) >= FEWEST_WORDS and num_known <= FEW_SHARE * len(asked):
        examples = _listed([word for word, _ in _telling(vocabulary)[:NUM_NAMED]])
        hardly = "none" if num_known == 0 else f"only {num_known}"
        notes.append(
            f"The model knows {hardly} of these {len(asked)} words. It learned words such as {examples}: ask in their "
            "language."
        )
    return tuple(notes)


def _telling(vocabulary: Vocabulary) -> list[tuple[str, int]]:
    """Words of weight, the most frequent first."""
    columns = zip(vocabulary.words, vocabulary.counts, vocabulary.importances, strict=True)
    heaviest = max(vocabulary.importances[1:])
    known = [(word, count) for word, count, weight in list(columns)[1:] if weight == heaviest]
    return sorted(known, key=lambda one: (-one[1], one[0]))


def _by_pieces(words: Sequence[str], num_pieces: Callable[[str], int]) -> tuple[str, ...]:
    by_script: dict[str, list[str]] = {}
    for word in words:
        by_script.setdefault(script_of(word), []).append(word)
    notes = []
    for script, own in by_script.items():
        letters = sum(sum(sign.isalpha() for sign in word) for word in own)
        if script in ("", "Latin") or letters < SHORTEST_LETTERS:
            continue  # a Latin word may be a name, and a language in these letters any
        if sum(map(num_pieces, own)) >= LETTER_BY_LETTER * letters:
            notes.append(
                f"The model's text encoder reads {_listed(own)} letter by letter: it has hardly met words in {script} "
                "letters."
            )
    return tuple(notes)


def _listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence, shortened.

    >>> _listed(["a", "b"]), _listed(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c, …')
    """
    if len(words) > NUM_NAMED:
        return ", ".join([*words[:NUM_NAMED], "…"])
    return " and ".join([part for part in (", ".join(words[:-1]), words[-1]) if part])
