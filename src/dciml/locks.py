"""Folders that one process at a time may write; the kernel holds the lock, so it is gone when the process is."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from dciml.errors import DataError

LOCK_FILE = ".lock"
MOST_SAID = 4096  # bytes of a lock file that are read: it is written by us, but lies in a user's folder


class Lock:
    """A lock that this process holds; `close` lets the next one in. See `take`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @property
    def closed(self) -> bool:
        """Whether it was let go."""
        return self._file.closed

    def close(self) -> None:
        """Let go. Harmless when called twice. The file stays: removing it would let two in at once."""
        self._file.close()


def take(folder: Path, doing: str, *, name: str = LOCK_FILE, mend: str | None = None) -> Lock:
    """Take the lock of a folder, without waiting.

    Started programs do not inherit it; it lasts until `close`, or until this process ends in whatever way.

    Args:
        folder: must exist.
        doing: what for, as others shall read it: "training a model".
        name: of the lock's file; locks of different names do not exclude each other.
        mend: what to do when it is taken; None: wait.
    Raises:
        DataError: another process has it; the message says which one, and since when. The folder cannot be written.
    """
    path = folder / name
    try:
        file = _locked(path)
    except BlockingIOError as error:
        raise DataError(
            f"it is in use by {_holder(path)}",
            where=folder,
            mend=mend or "wait until that is done, or end it",
        ) from error
    except OSError as error:
        what = f"the folder cannot be locked for writing ({error.strerror or error})"
        raise DataError(what, where=folder, mend="make it writable, or name another one") from error
    try:
        _sign(path, doing)
    except BaseException:
        file.close()
        raise
    return Lock(file)


@contextmanager
def hold(folder: Path, doing: str, *, name: str = LOCK_FILE) -> Iterator[None]:
    """`take` for as long as the block lasts."""
    lock = take(folder, doing, name=name)
    try:
        yield
    finally:
        lock.close()


def is_free(path: Path) -> bool:
    """Whether no process holds a kernel lock on a file or folder. False where that cannot be found out."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _locked(path: Path) -> BinaryIO:
    """The lock's file, locked. Raises BlockingIOError: another process has it; OSError."""
    try:
        return _flocked(path, os.O_RDONLY)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    return _flocked(
        path, os.O_RDWR
    )  # NFS wants it so; elsewhere an open file would keep a disk from going read-only


def _opened(path: Path, flags: int) -> BinaryIO:
    # No link is followed: it may lead to another user's file.
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    return os.fdopen(handle, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b", buffering=0)


def _flocked(path: Path, flags: int) -> BinaryIO:
    file = _opened(path, flags | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file


def _sign(path: Path, doing: str) -> None:
    """Say who holds the lock. A full disk is no reason to go without the lock."""
    command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:2]])
    said = {
        "process": os.getpid(),
        "doing": doing,
        "command": command.encode(errors="replace").decode()[:200],
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with suppress(OSError), _opened(path, os.O_RDWR) as file:
        file.write(json.dumps(said).encode() + b"\n")
        file.truncate()


def _holder(path: Path) -> str:
    """Who signed a lock file, in words."""
    try:
        with _opened(path, os.O_RDONLY) as file:
            said = json.loads(file.read(MOST_SAID))
        return f"process {int(said['process'])} ({said['doing']}: {said['command']}, since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
