"""YAML read strictly: plain values only, each key once, no aliases, no depth or number without end."""

from __future__ import annotations

from typing import Any

import yaml

from dciml.strict_json import MAX_DEPTH

MAX_SCALAR = 100_000
"""Characters of one value."""

_MAX_DIGITS = 300


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
            if len(node.value) > (_MAX_DIGITS if is_number else MAX_SCALAR):
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
