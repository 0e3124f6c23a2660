"""A Python dict of lists of strings, read as text: never evaluated, video by video, with the place of each error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dciml.errors import DataError, Where
from dciml.files import read_text

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>[uU]?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
    | (?P<mark>[{}\[\](),:])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|['\"\\])")
_FORM = "write {'VIDEO': ['FRAME', …], …} and nothing else"

Token = tuple[str, str, int]


def read_literal_dict(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (key, strings) of a file that holds `{'key': ['string', …], …}`, a dict as Python prints it.

    Values may be lists or tuples. Numbers, names, calls, nested values: nothing else is understood.

    Raises:
        DataError: the file is missing or is of another form; the message names the line. Also: a key twice.
    """
    text = read_text(path)
    tokens = _tokens(text, path)
    _expect(next(tokens), "{", text, path)
    seen: set[str] = set()
    token = next(tokens)
    while token[1] != "}" or token[0] == "string":
        key = _string(token, text, path)
        if key in seen:
            raise _error(f"the key {key!r} comes twice", token, text, path, "remove one of the two")
        seen.add(key)
        _expect(next(tokens), ":", text, path)
        yield key, _strings(tokens, text, path)
        token = next(tokens)
        if token[1] == "," and token[0] == "mark":
            token = next(tokens)
        elif token[1] != "}":
            raise _error(f"expected ',' or '}}', found {token[1]!r}", token, text, path)
    _expect(next(tokens), "", text, path)


def _strings(tokens: Iterator[Token], text: str, path: Path) -> list[str]:
    opening = next(tokens)
    closing = {"[": "]", "(": ")"}.get(opening[1] if opening[0] == "mark" else "")
    if closing is None:
        raise _error(f"expected a list, found {opening[1]!r}", opening, text, path)
    found: list[str] = []
    token = next(tokens)
    while token[:2] != ("mark", closing):
        found.append(_string(token, text, path))
        token = next(tokens)
        if token[:2] == ("mark", ","):
            token = next(tokens)
        elif token[:2] != ("mark", closing):
            raise _error(f"expected ',' or {closing!r}, found {token[1]!r}", token, text, path)
    return found


def _tokens(text: str, path: Path) -> Iterator[Token]:
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            piece = text[start : start + 20].split("\n")[0]
            raise _error(f"{piece!r} is neither a string nor a bracket", ("", piece, start), text, path)
        kind = match.lastgroup
        yield kind, match.group(kind), match.start(kind)
        position = match.end()
        if kind == "end":
            return


def _string(token: Token, text: str, path: Path) -> str:
    kind, raw, _ = token
    if kind != "string":
        raise _error(f"expected a string, found {raw or 'the end of the file'!r}", token, text, path)
    inner = raw.lstrip("uU")[1:-1]
    if "\\" not in inner:
        return inner
    plain = _ESCAPE.sub(_unescape, inner)
    if "\\" in _ESCAPE.sub("", inner):
        raise _error(f"the string {raw} has an escape that is not known", token, text, path)
    return plain


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    return chr(int(code[1:], 16)) if code[0] in "xu" else code


def _expect(token: Token, wanted: str, text: str, path: Path) -> None:
    if token[0] == "string" or token[1] != wanted:
        raise _error(f"expected {wanted or 'the end'!r}, found {token[1]!r}", token, text, path)


def _error(what: str, token: Token, text: str, path: Path, mend: str = _FORM) -> DataError:
    return DataError(what, where=Where(path, text.count("\n", 0, token[2]) + 1), mend=mend)
