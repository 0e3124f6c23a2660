"""A file layer that fails on demand: every operation that changes a folder is counted, and the n-th one fails.

What Python writes goes through `open` and the functions of `os`, which are replaced while the layer is in force;
statements of SQLite that change something go through a connection of ours. What writes past Python (SQLite's own
file, libraries in C and Rust) is driven by `room`, which lets the operating system refuse it.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

Mode = Literal["once", "full", "short", "dead", "crash"]
"""How it fails at the n-th operation.

once: that operation fails, all later ones work. full: it and all later ones that need room fail. short: a write leaves
half of its bytes, then fails. dead: it and all later ones fail. crash: nothing has any effect any more, and what was
not forced to disk is lost.
"""
MODES: tuple[Mode, ...] = ("once", "full", "short", "dead", "crash")
NEEDS_ROOM = {"open", "write", "mkdir", "link", "sendfile", "sync", "sql"}
SQL_READS = ("SELECT", "PRAGMA", "BEGIN", "ROLLBACK")


class Crash(BaseException):
    """The process is gone; nobody may catch it and write."""


class Faults:
    """Counts the operations below `root`, from 0; number `at` fails as `mode` says. `at` None: none fails."""

    def __init__(
        self, root: Path, at: int | None = None, mode: Mode = "once", code: int = errno.ENOSPC
    ) -> None:
        self.root, self.at, self.mode, self.code = str(root.resolve()), at, mode, code
        self.log: list[str] = []
        self.has_failed = False
        self._unsynced: dict[str, int] = {}  # path → bytes that are safe
        self._real = {name: getattr(os, name) for name in _OS_FUNCTIONS}
        self._real_open = io.open

    @contextlib.contextmanager
    def in_force(self) -> Iterator[Faults]:
        """Replace `open`, the functions of `os` and `sqlite3.connect` for a while."""
        with contextlib.ExitStack() as stack:
            for name, wrap in _OS_FUNCTIONS.items():
                stack.enter_context(mock.patch.object(os, name, wrap(self, self._real[name])))
            for module in (builtins, io):
                stack.enter_context(mock.patch.object(module, "open", self._open))
            connect = sqlite3.connect
            factory = type("Watched", (_Connection,), {"faults": self})
            stack.enter_context(
                mock.patch.object(
                    sqlite3,
                    "connect",
                    lambda *args, **named: connect(*args, **({"factory": factory} | named)),
                )
            )
            yield self

    def arm(self, at: int) -> None:
        """Count from here on, and fail at number `at`."""
        self.log.clear()
        self.at, self.has_failed = at, False

    def step(self, kind: str, *places: Any) -> None:
        """An operation is about to be done. Raises OSError, or Crash, when it fails."""
        if not any(self._path(place) is not None for place in places):
            return
        if self.has_failed and self.mode == "crash":
            raise self._crash(kind)
        number = len(self.log)
        self.log.append(f"{kind} {' '.join(str(self._path(place)) for place in places)}")
        if number == self.at:
            self.has_failed = True
            if self.mode == "crash":
                self._lose()
                raise self._crash(kind)
            raise OSError(self.code, os.strerror(self.code), self.log[-1])
        if self.has_failed and (self.mode == "dead" or (self.mode == "full" and kind in NEEDS_ROOM)):
            raise OSError(self.code, os.strerror(self.code), self.log[-1])

    def fails_short(self, place: Any) -> bool:
        """Is the next write the one that leaves a part?"""
        return self.mode == "short" and len(self.log) == self.at and self._path(place) is not None

    def wrote(self, place: Any, before: int) -> None:
        """Bytes behind `before` are not on disk yet."""
        path = self._path(place)
        if path is not None:
            self._unsynced[path] = min(before, self._unsynced.get(path, before))

    def synced(self, place: Any) -> None:
        """A file was forced to disk."""
        self._unsynced.pop(self._path(place) or "", None)

    def moved(self, old: Any, new: Any) -> None:
        """A file or folder has another name."""
        before, after = self._path(old), self._path(new)
        for path in list(self._unsynced):
            if before is not None and after is not None and (path + "/").startswith(before + "/"):
                self._unsynced[after + path[len(before) :]] = self._unsynced.pop(path)

    def _crash(self, kind: str) -> BaseException:
        """Ends the main thread; another one, which somebody may wait for, finds a disk that fails."""
        is_main = threading.current_thread() is threading.main_thread()
        return Crash(kind) if is_main else OSError(errno.EIO, os.strerror(errno.EIO))

    def _lose(self) -> None:
        for path, size in self._unsynced.items():
            if os.path.isfile(path):
                self._real["truncate"](path, size)

    def _path(self, place: Any) -> str | None:
        """The absolute path of a path or descriptor when it lies below the root, else None."""
        try:
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fsdecode(place)
        except (OSError, TypeError):
            return None
        path = os.path.abspath(path)
        return path if path == self.root or path.startswith(self.root + "/") else None

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or self._path(file) is None:
            return self._real_open(file, mode, buffering, *rest, **named)
        names = ("encoding", "errors", "newline", "closefd", "opener")
        given = dict(zip(names, rest, strict=False)) | named
        if not isinstance(file, int):
            self.step("open", file)
        raw = _File(self, file, mode.replace("b", "").replace("t", ""), given)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, given.get("encoding"), given.get("errors"), given.get("newline"))


class _File(io.FileIO):
    def __init__(self, faults: Faults, file: Any, mode: str, given: dict[str, Any]) -> None:
        self._faults = faults
        super().__init__(file, mode, given.get("closefd", True), given.get("opener"))
        if "w" in mode:
            faults.wrote(self.fileno(), 0)

    def write(self, content: Any) -> int:
        place, before = self.fileno(), os.fstat(self.fileno()).st_size
        if self._faults.fails_short(place):
            super().write(memoryview(content).cast("B")[: memoryview(content).nbytes // 2])
        self._faults.step("write", place)
        self._faults.wrote(place, min(before, self.tell()))
        return super().write(content)

    def truncate(self, size: int | None = None) -> int:
        self._faults.step("truncate", self.fileno())
        return super().truncate(size)


class _Connection(sqlite3.Connection):
    """A connection whose changing statements count as operations."""

    faults: Faults

    def __init__(self, database: Any, **named: Any) -> None:
        self._file = Path(str(database).removeprefix("file://").partition("?")[0])
        super().__init__(database, **named)

    def _step(self, statement: str) -> None:
        if statement.lstrip().upper().startswith(SQL_READS):
            return
        try:
            self.faults.step("sql", self._file)
        except OSError as error:
            said = "database or disk is full" if error.errno == errno.ENOSPC else "disk I/O error"
            raise sqlite3.OperationalError(said) from error

    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        self._step(statement)
        return super().execute(statement, *rest)

    def executemany(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        self._step(statement)
        return super().executemany(statement, *rest)

    def executescript(self, script: str) -> sqlite3.Cursor:
        self._step(script)
        return super().executescript(script)

    def backup(self, target: sqlite3.Connection, **named: Any) -> None:
        if isinstance(target, _Connection):
            target._step("backup")
        super().backup(target, **named)


def _simple(kind: str) -> Callable[[Faults, Any], Any]:
    def wrap(faults: Faults, real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            folder = named.get("dir_fd")
            place = args[0] if folder is None else f"{os.readlink(f'/proc/self/fd/{folder}')}/{args[0]}"
            faults.step(kind, place)
            return real(*args, **named)

        return call

    return wrap


def _moving(kind: str) -> Callable[[Faults, Any], Any]:
    def wrap(faults: Faults, real: Any) -> Any:
        def call(old: Any, new: Any, **named: Any) -> Any:
            faults.step(kind, old, new)
            done = real(old, new, **named)
            if kind == "rename":
                faults.moved(old, new)
            return done

        return call

    return wrap


def _syncing(faults: Faults, real: Any) -> Any:
    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        faults.step("sync", number)
        faults.synced(number)  # and no more: tests are slow where they wait for a disk

    return fsync


def _opening(faults: Faults, real: Any) -> Any:
    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT and named.get("dir_fd") is None:
            faults.step("open", path)
        return int(real(path, flags, *rest, **named))

    return opened


def _sending(faults: Faults, real: Any) -> Any:
    def sendfile(out: int, *rest: Any, **named: Any) -> int:
        before = os.fstat(out).st_size
        faults.step("sendfile", out)
        faults.wrote(out, before)
        return int(real(out, *rest, **named))

    return sendfile


_OS_FUNCTIONS: dict[str, Callable[[Faults, Any], Any]] = {
    **{
        name: _simple(name)
        for name in ("unlink", "remove", "rmdir", "mkdir", "truncate", "ftruncate", "chmod")
    },
    **{name: _moving("rename") for name in ("rename", "replace")},
    "link": _moving("link"),
    "write": _simple("write"),
    "fsync": _syncing,
    "open": _opening,
    "sendfile": _sending,
}


@contextlib.contextmanager
def room(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, whoever writes it; the system refuses it as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
