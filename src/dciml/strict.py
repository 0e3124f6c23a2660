"""JSON and YAML read strictly: what a parser lets pass or trips over is an error that names the line.

JSON read strictly: what Python's parser lets pass or trips over is an error that names line and field.

A key twice, NaN and Infinity, numbers beyond the range of a float, nesting without end, NUL and halves of characters.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from dciml.errors import DataError, Where

MAX_DEPTH = 64
"""Objects and lists within each other; the deepest form that is read has six."""

_MAX_DIGITS = 400  # longer numbers are not even parsed: the largest float has 309 digits
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', re.DOTALL)
_BROKEN = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


class _RefusedError(Exception):
    """The parser met what is not allowed; `_faults` tells where."""


def parse_json(text: str, where: Where, allow_broken_text: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        where: the file, and the line on which the text begins where that is not the first.
        allow_broken_text: NUL and halves of characters (lone surrogates) in strings.
    Raises:
        DataError: not JSON, or JSON that does not say one thing; the message names line and field.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise DataError(
            f"the line is malformed: not valid JSON ({error.msg}, column {error.colno})",
            where=Where(where.path, (where.line or 1) + error.lineno - 1),
            mend="correct that line, or write the file again",
        ) from error
    except (_RefusedError, RecursionError) as error:
        raise next(_faults(text, where, allow_broken_text), _too_deep(where)) from error
    if _is_deep(value) or (not allow_broken_text and _BROKEN.search(text)):
        for fault in _faults(text, where, allow_broken_text):
            raise fault
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RefusedError
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS or (len(text) > 300 and not math.isfinite(float(text))):
        raise _RefusedError
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError
    return value


def _constant(text: str) -> float:
    raise _RefusedError


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


@dataclass
class _Open:
    """An object or a list that has begun: what it has had so far."""

    is_object: bool
    keys: set[str] = field(default_factory=set)
    key: str | None = None
    index: int = 0


def _faults(text: str, where: Where, allow_broken_text: bool) -> Iterator[DataError]:
    """What is wrong with a text of the right grammar, in its order."""
    opened: list[_Open] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        inner = opened[-1] if opened else None
        is_key = token[0] == '"' and inner is not None and inner.is_object and inner.key is None
        content: str | None = json.loads(token) if token[0] == '"' else None
        what, mend = None, "correct it"
        if token in "[{":
            opened.append(_Open(token == "{"))
            if len(opened) > MAX_DEPTH:
                yield _too_deep(_place(text, where, match.start(), None))
                return
        elif token in "]}" and opened:
            opened.pop()
        elif token == "," and inner is not None:
            inner.key, inner.index = None, inner.index + 1
        elif is_key and inner is not None and content is not None:
            if content in inner.keys:
                what, mend = (
                    f"the key {content!r} comes twice in one object",
                    "remove or rename one of the two",
                )
            inner.key = content
            inner.keys.add(content)
        elif content is None and token not in ("true", "false", "null", ":"):
            what, mend = _number_fault(token), "give a finite number, or remove it"
        if what is None and content is not None and not allow_broken_text:
            what, mend = _text_fault(content), "correct the text"
        if what is not None:
            yield DataError(what, where=_place(text, where, match.start(), opened), mend=mend)


def _number_fault(token: str) -> str | None:
    if token in ("NaN", "Infinity", "-Infinity"):
        return f"the number is {token}"
    try:
        in_range = math.isfinite(float(token))
    except ValueError:
        return f"{token[:40]!r} is not a number"
    shown = token if len(token) <= 40 else f"{token[:20]}… of {len(token):,} digits"
    return None if in_range and len(token) <= _MAX_DIGITS else f"the number {shown} is out of range"


def _text_fault(content: str) -> str | None:
    if "\0" in content:
        return "the text holds a NUL"
    if any("\ud800" <= letter <= "\udfff" for letter in content):
        return "the text holds half a character (a lone surrogate)"
    return None


def _place(text: str, where: Where, position: int, opened: list[_Open] | None) -> Where:
    line = (where.line or 1) + text.count("\n", 0, position)
    names = [(item.key or "") if item.is_object else f"[{item.index}]" for item in opened or ()]
    path = ".".join(names).replace(".[", "[")
    return Where(where.path, line, path[:200] or None)


def _too_deep(where: Where) -> DataError:
    what = f"objects and lists are nested more than {MAX_DEPTH} deep"
    return DataError(what, where=where, mend="write the file in its documented form")


MAX_SCALAR = 100_000
"""Characters of one value."""

_MAX_YAML_DIGITS = 300


class _Loader(yaml.SafeLoader):
    """Refuses what the safe loader lets pass: aliases, tags, a key twice, huge numbers, endless nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _error("an alias (*) is not allowed; write the value out", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _error(f"a tag ({event.tag}) is not allowed", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(f"nested more than {MAX_DEPTH} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is not a plain word", key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":
                raise _error("a merge (<<) is not allowed; write the values out", key.start_mark)
            if key.value in seen:
                raise _error(f"the key {key.value!r} comes twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
            if len(node.value) > (_MAX_YAML_DIGITS if is_number else MAX_SCALAR):
                raise _error(f"a value of {len(node.value):,} characters", node.start_mark)
        return super().construct_object(node, deep)


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML text. Raises yaml.YAMLError, with line and column, for anything else.

    >>> parse_yaml("a: [1, 2]")
    {'a': [1, 2]}
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except (ValueError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(f"a value cannot be read ({error})") from error
    finally:
        loader.dispose()


def _error(what: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)
