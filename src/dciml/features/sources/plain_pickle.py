"""Pickles of plain values, read without unpickling: nothing that a file names is ever imported.

The standard library's disassembler (`pickletools.genops`) turns the file into a list of operations; this module
carries out those that build plain values: numbers, strings, bytes, lists, tuples, dicts. Of all globals it knows,
by name only, those with which NumPy arrays of numbers and `collections.Counter` are pickled, and builds these
itself. Any other global or operation is an error that names it.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.inputs import read_input

_MAX_BYTES = 2 << 30
_NUMPY_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_ARRAY = {(module, "_reconstruct") for module in _NUMPY_CORE}
_SCALAR = {(module, "scalar") for module in _NUMPY_CORE}
_BUFFER = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}  # protocol 5
_NO_BYTES = {("__builtin__", "bytes"), ("builtins", "bytes")}  # b"" in protocols 0 to 2
_MAPPINGS = {("collections", "Counter"), ("collections", "OrderedDict")}
_ADMITTED = {
    *_ARRAY,
    *_SCALAR,
    *_BUFFER,
    *_NO_BYTES,
    *_MAPPINGS,
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes into a pickle of protocol 2
}
_DTYPE = re.compile(r"[fiu][1248]|b1")
_MEND = "do not use a file from a source that you do not trust; convert it to another form where you do"

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_VALUE = re.compile(
    r"INT|BININT[12]?|LONG[14]?|(BIN)?FLOAT|((SHORT_)?BIN)?STRING|((SHORT_)?BIN)?UNICODE8?|(SHORT_)?BINBYTES8?"
    r"|BYTEARRAY8"
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = ("PROTO", "FRAME")


@dataclass(frozen=True)
class _Global:
    """A name in a pickle; it is never looked up."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass(eq=False)
class _Unfinished:
    """An array or a data type whose content comes with a later operation; `kept_as` are its places in the memo."""

    kind: str  # "array" or a data type's code
    kept_as: list[int] = field(default_factory=list)


def read_plain_pickle(path: str | Path) -> Any:
    """The value in a pickle file: numbers, strings, bytes, lists, tuples, dicts, NumPy arrays of numbers.

    A `Counter` or `OrderedDict` becomes a plain dict.

    Raises:
        DataError: the file names another global (which is not touched), uses another operation, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("there is no such file", where=path, mend="check the path")
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"the pickle has more than {_MAX_BYTES:,} bytes", where=path, mend="use another form")
    machine = _Machine(path)
    try:
        for operation, argument, position in pickletools.genops(read_input(path)):
            if operation.name == "STOP":
                return machine.result()
            machine.step(operation.name, argument, position)
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(f"the pickle is damaged ({error})", where=path, mend="copy the file again") from error
    raise DataError("the pickle ends too early", where=path, mend="copy the file again")


class _Machine:
    """The stack and the memo of a pickle, for the admitted operations only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def step(self, name: str, argument: Any, position: int | None) -> None:
        stack = self.stack
        if _VALUE.fullmatch(name):
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._keep(len(self.memo) if name == "MEMOIZE" else argument)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name not in _IGNORED:
            self._container(name, argument, position)

    def _container(self, name: str, argument: Any, position: int | None) -> None:
        stack = self.stack
        if name in ("TUPLE", "LIST", "DICT"):
            items = self._to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _pairs(items))
        elif name == "APPEND":
            item = stack.pop()
            _checked(stack[-1], list).append(item)
        elif name == "APPENDS":
            items = self._to_mark()
            _checked(stack[-1], list).extend(items)
        elif name == "SETITEM":
            items = stack[-2:]
            del stack[-2:]
            _checked(stack[-1], dict).update(_pairs(items))
        elif name == "SETITEMS":
            items = self._to_mark()
            _checked(stack[-1], dict).update(_pairs(items))
        else:
            self._object(name, argument, position)

    def _object(self, name: str, argument: Any, position: int | None) -> None:
        stack = self.stack
        if name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            found = _Global(str(module), str(attribute))
            if found.key not in _ADMITTED:
                raise self._forbidden(f"the global {found.module}.{found.name}", position)
            stack.append(found)
        elif name == "REDUCE":
            arguments = _checked(stack.pop(), tuple)
            stack.append(self._build(_checked(stack.pop(), _Global), arguments, position))
        elif name == "BUILD":
            state = _checked(stack.pop(), tuple)
            unfinished = _checked(stack.pop(), _Unfinished)
            value = _array(state) if unfinished.kind == "array" else _finished_dtype(unfinished.kind, state)
            for place in unfinished.kept_as:
                self.memo[place] = value
            stack.append(value)
        else:
            raise self._forbidden(f"the operation {name}", position)

    def _build(self, what: _Global, arguments: tuple[Any, ...], position: int | None) -> Any:
        if what.key in _ARRAY:
            return _Unfinished("array")
        if what.key == ("numpy", "dtype"):
            code = arguments[0]
            if not isinstance(code, str) or not _DTYPE.fullmatch(code):
                named = repr(code) if isinstance(code, str) else type(code).__name__
                raise self._forbidden(f"an array of the type {named}", position)
            return _Unfinished(code)
        if what.key in _MAPPINGS and all(isinstance(argument, dict) for argument in arguments):
            return dict(*arguments)
        if what.key in _SCALAR:
            dtype, content = arguments
            return _numbers(content, _checked(dtype, np.dtype), ())[()]
        if what.key in _BUFFER:
            content, dtype, shape, order = arguments
            return _array((1, shape, dtype, order == "F", bytes(content)))
        if what.key in _NO_BYTES and not arguments:
            return b""
        if what.key == ("_codecs", "encode") and arguments[1:] == ("latin1",):
            return _checked(arguments[0], str).encode("latin1")
        raise self._forbidden(f"a call of {what.module}.{what.name}", position)

    def _keep(self, place: int) -> None:
        value = self.stack[-1]
        self.memo[place] = value
        if isinstance(value, _Unfinished):
            value.kept_as.append(place)

    def _to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _forbidden(self, what: str, position: int | None) -> DataError:
        return DataError(
            f"the pickle holds {what[:200]} (at byte {position}), which is forbidden: only plain values are read",
            where=Where(self.path),
            mend=_MEND,
        )


def _pairs(items: list[Any]) -> dict[Any, Any]:
    keys = items[::2]
    for key in keys:
        # Python hashes tuples in tuples without a limit, and a thousand thousand of them end the process.
        if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
            raise TypeError("a key is a tuple of tuples")
    return dict(zip(keys, items[1::2], strict=True))


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"found {type(value).__name__} where {kind.__name__.strip('_')} must be")
    return value


def _finished_dtype(code: str, state: tuple[Any, ...]) -> np.dtype[Any]:
    order = state[1]
    if order not in ("<", ">", "|", "="):
        raise ValueError(f"a byte order {order!r}")
    return np.dtype(code).newbyteorder(order)


def _array(state: tuple[Any, ...]) -> NDArray[Any]:
    _, shape, dtype, is_fortran, content = state
    shape = tuple(_checked(length, int) for length in _checked(shape, tuple))
    values = _numbers(content, _checked(dtype, np.dtype), shape)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def _numbers(content: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if isinstance(content, str):  # a byte string of Python 2
        content = content.encode("latin1")
    if min(shape, default=1) < 0 or len(_checked(content, bytes)) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} whose content has another size")
    return np.frombuffer(content, dtype=dtype).reshape(shape)
