"""What the machine refuses (a full disk, a locked database, too little memory), as a status and a plain sentence."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from dciml.errors import DataError, DcimlError

MISTAKE = "The server made a mistake. Its log has the details."


def sentence_of(error: DcimlError) -> str:
    """What is wrong and how to mend it, without the server's paths.

    >>> sentence_of(DataError("the sentence is empty", where="/srv/a.jsonl", mend="write one"))
    'The sentence is empty. To mend it: write one.'
    """
    if isinstance(error, DataError):
        mend = f" To mend it: {error.mend}." if error.mend else ""
        return f"{error.what[:1].upper()}{error.what[1:]}.{mend}"
    return "The index or its model cannot be used. The server's log has the details."


@dataclass(frozen=True)
class Trouble:
    """An HTTP status, and a sentence without the server's paths."""

    status: int
    sentence: str


FULL = Trouble(
    507,
    "The server's disk is full. To mend it: whoever runs the server can make room for the index, for added videos "
    "and for temporary files; then try again.",
)
FORBIDDEN = Trouble(
    403,
    "The server may not read or write a file that it needs for this: the disk is read-only, or the folder is another "
    "user's. To mend it: whoever runs the server can change that.",
)
BUSY = Trouble(
    503, "The server has too little memory or too many open files for this now. Try again in a moment."
)
LOCKED = Trouble(503, "Another process is using the index. Try again in a moment.")
GONE = Trouble(
    503,
    "A file of the index, of its features or of its model is gone or cannot be opened. To mend it: whoever runs the "
    "server can put it back, or start the server again.",
)
DAMAGED = Trouble(
    500,
    "The index is damaged. To mend it: whoever runs the server can look with `dciml index-verify`.",
)
BROKEN = Trouble(500, "The server's disk does not work as it should. The server's log has the details.")

_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), FORBIDDEN),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN), BUSY),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ESTALE), GONE),
}
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_READONLY: FORBIDDEN,
    sqlite3.SQLITE_PERM: FORBIDDEN,
    sqlite3.SQLITE_NOMEM: BUSY,
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_CANTOPEN: GONE,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_IOERR: BROKEN,
}


def trouble_of(error: BaseException) -> Trouble | None:
    """What the machine refused, where that is what an error, or the first of its causes, comes from.

    >>> trouble_of(OSError(28, "No space left on device")).status
    507
    >>> trouble_of(ValueError("x")) is None
    True
    """
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return BUSY
        if isinstance(cause, OSError):
            return _BY_ERRNO.get(cause.errno or 0, BROKEN)
        if isinstance(cause, sqlite3.Error):
            return _of_sqlite(cause)
    return None


def _of_sqlite(error: sqlite3.Error) -> Trouble:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the module itself
        return BROKEN
    # On a limited size of files SQLite says no more than that it could not write.
    return FULL if code == sqlite3.SQLITE_IOERR_WRITE else _BY_SQLITE.get(code & 0xFF, BROKEN)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
