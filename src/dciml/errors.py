"""Errors that a user can act on: each says what is wrong, where, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LONGEST_FIELD, LONGEST_SAID = 200, 1000
"""Characters of what comes from a user's file, which may hold anything."""


def shortened(text: str, longest: int) -> str:
    """The text, its middle left out where it is too long for a message.

    >>> shortened("abcdefgh", 5)
    'ab…gh'
    """
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


class DcimlError(Exception):
    """The base of every error that dciml raises on purpose; the command line prints it without a traceback."""


@dataclass(frozen=True)
class Where:
    """A place in a user's input.

    >>> str(Where("train.jsonl", line=3, field="sentence"))
    'train.jsonl, line 3, field sentence'
    """

    path: str | Path
    line: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        parts = [str(self.path)]
        if self.line is not None:
            parts.append(f"line {self.line}")
        if self.field is not None:
            parts.append(f"field {shortened(self.field, LONGEST_FIELD)}")
        return ", ".join(parts)


class DataError(DcimlError):
    """The user's data is missing, malformed or does not fit together.

    >>> print(DataError("the sentence is empty", where=Where("a.jsonl", 2, "sentence"), mend="write a sentence"))
    a.jsonl, line 2, field sentence: the sentence is empty. To mend it: write a sentence.
    """

    def __init__(
        self, what: str, *, where: Where | str | Path | None = None, mend: str | None = None
    ) -> None:
        self.what, self.where, self.mend = what, where, mend
        said = shortened(what, LONGEST_SAID)
        text = f"{where}: {said}" if where is not None else said
        super().__init__(f"{text}. To mend it: {mend}." if mend else f"{text}.")


class ConfigError(DcimlError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class ModelError(DcimlError):
    """A model folder or an index cannot be used: incomplete, damaged, or of another model."""


class TrainingError(DcimlError):
    """Training cannot go on, for example because a loss is not finite."""
