"""Writing files so that a reader sees the old content or the new, never half of either."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dciml.errors import DataError, Where
from dciml.inputs import MAX_TEXT_BYTES, read_decoded, read_input
from dciml.locks import is_free
from dciml.strict import parse_json

PART_SUFFIX = ".dciml-part"
_PART_NAME = re.compile(r"\..*\.[a-z0-9_]{8}" + re.escape(PART_SUFFIX), re.DOTALL)
_YOUNG_SECONDS = (
    60.0  # some libraries replace the file that they write, and the lock on it goes with the old one
)


def _name_file(error: OSError, path: Path) -> None:
    """Say which file it was, where the system did not, as of a write to a full disk."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it is removed.

    The content is flushed to disk before the rename, so a power cut leaves the old file or the new one. What a kill
    leaves behind is found by `remove_leftovers`: a lock on the file says that its writer lives.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_part_prefix(path), suffix=PART_SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        _name_file(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it becomes `path`, on failure it is removed.

    What killed processes left beside it, on their way to the same `path`, is removed first.

    Args:
        path: does not exist yet, or is an empty folder; else DataError is raised, before anything is done.
    """
    refuse_taken(path)
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, of=path.name)
    temporary = Path(tempfile.mkdtemp(prefix=_part_prefix(path), suffix=PART_SUFFIX, dir=path.parent))
    handle = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield temporary
        temporary.chmod(0o755)
        refuse_taken(path)  # another process may have been faster
        temporary.rename(path)
    except OSError as error:
        _name_file(error, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def refuse_taken(path: Path) -> None:
    """Raise DataError where something is already that a new folder would replace; an empty folder is free."""
    if path.is_symlink() and not path.exists():
        raise DataError("this is a link that leads nowhere", where=path, mend="name a new folder")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(
            "there is something here already", where=path, mend="name a new folder, or remove this one first"
        )


def remove_leftovers(folder: Path, *, of: str | None = None) -> list[Path]:
    """Remove half-written files and folders of this program whose writer is dead; subfolders are not looked into.

    Args:
        of: only what was on its way to this name.
    Returns: what was removed.
    """
    removed = []
    prefix = "." if of is None else _part_prefix(Path(of))
    try:
        found = [entry for entry in os.scandir(folder) if entry.name.startswith(prefix)]
    except OSError:
        return []
    for entry in found:
        path = Path(entry.path)
        if not _PART_NAME.fullmatch(entry.name) or entry.is_symlink() or not is_free(path):
            continue
        with suppress(OSError):
            if entry.is_dir():
                shutil.rmtree(path)
            elif time.time() - entry.stat().st_mtime < _YOUNG_SECONDS:
                continue
            else:
                path.unlink()
            removed.append(path)
    return removed


def _part_prefix(path: Path) -> str:
    # A name has 255 bytes at most, and this one gets 20 more characters.
    return f".{path.name.encode(errors='surrogateescape')[:200].decode(errors='ignore')}."


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, with keys in the given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_json(path: Path) -> Any:
    """Read a JSON file, strictly (`parse_json`).

    Raises:
        DataError: the file is missing, empty or malformed; the message names the file, the line and the field.
    """
    return parse_json(read_text(path), Where(path))


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text file that must exist and must not be empty.

    Raises:
        DataError: missing, empty, no regular file, too large, or not UTF-8.
    """
    try:
        text = read_input(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the text is not UTF-8", where=path, mend="convert the file to UTF-8") from error
    return _not_empty(text.replace("\r\n", "\n").replace("\r", "\n"), path)


def read_foreign_text(path: Path) -> str:
    """Read a text that another program wrote, in whatever encoding (`read_decoded`); it must not be empty."""
    return _not_empty(read_decoded(path).replace("\r\n", "\n").replace("\r", "\n"), path)


def _not_empty(text: str, path: Path) -> str:
    if not text.strip():
        raise DataError(
            "the file is empty", where=path, mend="check how it was written, or name another file"
        )
    return text


def sync_folder(folder: Path) -> None:
    """Force the names of new files to disk; a name is an entry of its folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
