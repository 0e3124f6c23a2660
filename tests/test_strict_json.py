from __future__ import annotations

import pytest

from dciml.errors import DataError, Where
from dciml.strict import parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": {"c": 1,\n "c": 2}}', r"x\.json, line 3, field b\.c: the key 'c' comes twice"),
        ('{"v": [1, {"d": NaN}]}', r"line 1, field v\[1\]\.d: the number is NaN"),
        ('{"d": -Infinity}', "field d: the number is -Infinity"),
        ('{"d": 1e999}', "field d: the number 1e999 is out of range"),
        ('{"d": ' + "9" * 400 + "}", "field d: the number 9+… of 400 digits is out of range"),
        ('{"d": ' + "9" * 6000 + "}", "field d: the number 9+… of 6,000 digits is out of range"),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 deep"),
        (r'{"id": "a\u0000b"}', "field id: the text holds a NUL"),
        (r'{"id": "a\ud800b"}', "field id: the text holds half a character"),
        ("{", "line 1: the line is malformed: not valid JSON"),
    ],
)
def test_what_does_not_say_one_thing_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(text, Where("x.json"))


def test_whole_json_is_read_as_it_is() -> None:
    text = r'{"a": [1, 2.5, -3e2, null, true, "\u00e9 \ud83d\udc15 [{"], "b": {"a": 18446744073709551616}}'
    expected = {"a": [1, 2.5, -300.0, None, True, "é 🐕 [{"], "b": {"a": 1 << 64}}
    assert parse_json(text, Where("x.json")) == expected
    assert parse_json("[" * 64 + "]" * 64, Where("x.json")) is not None


def test_place_counts_from_the_line_of_the_text() -> None:
    with pytest.raises(DataError, match="line 7, field d"):
        parse_json('{"d": NaN}', Where("x.jsonl", 7))
