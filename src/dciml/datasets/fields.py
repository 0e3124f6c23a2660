"""Strict reading of JSON lines and of their fields; every error names the file, the line and the field."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dciml.errors import DataError, Where
from dciml.files import read_text
from dciml.strict_json import parse_json

Row = dict[str, Any]
_WORD = re.compile(r"[^\W_]")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number, object) for each line that is not blank.

    Raises:
        DataError: the file is missing or empty, or a line is not a JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, Where(path, number))
        if not isinstance(row, dict):
            raise DataError("the line is not a JSON object", where=Where(path, number), mend='write {"…": …}')
        yield number, row


def check_names(row: Row, known: Collection[str], where: Where) -> None:
    """Refuse unknown fields: a misspelt `moments` must not silently vanish."""
    for name in row:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            mend = (
                f"write {near[0]!r}"
                if near
                else f"remove it; the known fields are {', '.join(sorted(known))}"
            )
            raise DataError("the field is unknown", where=Where(where.path, where.line, name), mend=mend)


def text_field(row: Row, name: str, where: Where) -> str:
    """A field that must be there and must be a string that is not blank."""
    place = Where(where.path, where.line, name)
    value = _present(row, name, place)
    if not isinstance(value, str):
        raise DataError(f"this must be a string, not {_kind(value)}", where=place, mend="put it in quotes")
    if not value.strip():
        raise DataError(f"the {name} is empty", where=place, mend=f"write the {name}, or remove the line")
    return value


def number_field(row: Row, name: str, where: Where) -> float:
    """A field that must be there and must be a finite number."""
    place = Where(where.path, where.line, name)
    return as_number(_present(row, name, place), place)


def positive_field(row: Row, name: str, where: Where) -> float:
    """A field that must be there and must be a number above 0."""
    value = number_field(row, name, where)
    if value <= 0:
        place = Where(where.path, where.line, name)
        raise DataError(f"{value} is not a positive number", where=place, mend="give seconds, above 0")
    return value


def as_number(value: object, place: Where) -> float:
    """A JSON value as a finite number. Raises DataError for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"this must be a number, not {_kind(value)}", where=place, mend="give a number")
    if not math.isfinite(value):
        raise DataError(
            f"the number is {value}", where=place, mend="give a finite number, or remove the field"
        )
    return float(value)


def check_sentence(sentence: str, place: Where) -> str:
    """A sentence without the blanks around it. Raises DataError for one that is empty or holds no word.

    >>> check_sentence(" A dog runs. ", Where("a.jsonl", 1, "sentence"))
    'A dog runs.'
    """
    if not sentence.strip():
        raise DataError("the sentence is empty", where=place, mend="write a sentence, or remove the query")
    if _WORD.search(sentence) is None:
        raise DataError(
            f"the sentence {sentence.strip()!r} has no word", where=place, mend="write a sentence with words"
        )
    return sentence.strip()


def _present(row: Row, name: str, place: Where) -> object:
    if name not in row:
        raise DataError("the field is missing", where=place, mend=f"add {name!r} to the line")
    value: object = row[name]
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
