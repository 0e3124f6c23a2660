"""Features in the "BigFile" form of the PRVR releases (MS-SL, GMMFormer and their kin).

feature.bin        float32, little-endian, one row a frame
shape.txt          number of rows, width
id.txt             a name for each row, separated by white space (ISO 8859-1)
video2frames.txt   a Python dict {'VIDEO': ['ROW NAME', …], …}, read as text, never evaluated
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.files import read_text
from dciml.inputs import read_input

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


BIN_FILE, SHAPE_FILE, ID_FILE, VIDEOS_FILE = "feature.bin", "shape.txt", "id.txt", "video2frames.txt"
_AGAIN = "unpack the release again"


class BigFileSource:
    """A BigFile folder. Its rows stay on disk until they are read.

    Raises:
        DataError: a file is missing or malformed, the four do not agree, or a video names a row that is not there.
    """

    encoder_specs: tuple[str, ...] = ()

    def __init__(self, path: Path, encoder: str, rows_per_second: float | None) -> None:
        self.path, self.encoder, self.rows_per_second = path, encoder, rows_per_second
        self.durations: Mapping[str, float] = {}
        self.splits: Mapping[str, str] = {}
        num_rows, self._width = _read_shape(path / SHAPE_FILE)
        index_of = _read_names(path / ID_FILE, num_rows)
        self._rows = _map_rows(path / BIN_FILE, num_rows, self._width)
        self._indices = {
            video_id: _indices(video_id, names, index_of, path / VIDEOS_FILE)
            for video_id, names in read_literal_dict(path / VIDEOS_FILE)
        }
        if not self._indices:
            raise DataError("the file names no video", where=path / VIDEOS_FILE, mend=_AGAIN)
        self.video_ids = tuple(self._indices)

    def place(self, video_id: str) -> Where:
        """The rows of a video."""
        return Where(self.path / BIN_FILE, field=video_id)

    def origin(self, video_id: str) -> str | None:
        """The folder's name."""
        return self.path.name

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""
        return len(self._indices[video_id])

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width."""
        return len(self._indices[video_id]), self._width

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos, one after another, in the order in which `video2frames.txt` names them."""
        for video_id in video_ids:
            yield self._rows[self._indices[video_id]]


def is_bigfile(path: Path) -> bool:
    """Whether a folder looks like one of this form, whole or not."""
    return any((path / name).is_file() for name in (BIN_FILE, SHAPE_FILE, VIDEOS_FILE))


_COUNT = re.compile(r"0*[1-9][0-9]{0,14}")


def _read_shape(path: Path) -> tuple[int, int]:
    parts = read_text(path).split()
    if len(parts) != 2 or not all(_COUNT.fullmatch(part) for part in parts):
        what = f"{' '.join(parts)[:40]!r} is not the number of rows and their width"
        raise DataError(what, where=Where(path, 1), mend=_AGAIN)
    return int(parts[0]), int(parts[1])


def _read_names(path: Path, num_rows: int) -> dict[str, int]:
    if not path.is_file():
        raise DataError("there is no such file", where=path, mend=_AGAIN)
    names = read_input(path).decode("iso-8859-1").split()
    if len(names) != num_rows:
        what = f"there are {len(names):,} names, but {SHAPE_FILE} says {num_rows:,} rows"
        raise DataError(what, where=path, mend=_AGAIN)
    index_of = {name: index for index, name in enumerate(names)}
    if len(index_of) != num_rows:
        twice = next(name for index, name in enumerate(names) if index_of[name] != index)
        raise DataError(f"the row name {twice!r} comes twice", where=path, mend=_AGAIN)
    return index_of


def _map_rows(path: Path, num_rows: int, width: int) -> NDArray[np.float32]:
    expected = num_rows * width * 4
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise DataError("there is no such file", where=path, mend=_AGAIN)
    if size != expected:
        what = (
            f"the file has {size:,} bytes, but {num_rows:,} rows of {width} float32 numbers take {expected:,}"
        )
        raise DataError(what, where=path, mend=_AGAIN)
    return np.memmap(path, dtype="<f4", mode="r", shape=(num_rows, width))


def _indices(
    video_id: str, names: Sequence[str], index_of: Mapping[str, int], path: Path
) -> NDArray[np.int64]:
    if not names:
        raise DataError("the video has no rows", where=Where(path, field=video_id), mend="remove the entry")
    try:
        return np.array([index_of[name] for name in names], dtype=np.int64)
    except KeyError as error:
        what = f"the row {error.args[0]!r} is not in {ID_FILE}"
        raise DataError(what, where=Where(path, field=video_id), mend=_AGAIN) from None
