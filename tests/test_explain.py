"""What machines and libraries refuse, in words; and the top of the command line."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dciml.errors import DataError
from dciml.explain import EXTRAS, explained


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x", "a/b"), "a/b: the disk is full. To mend it: make room"),
        (OSError(errno.EROFS, "x"), "the disk is read-only"),
        (PermissionError(errno.EACCES, "x", b"\xff"), "permission denied"),
        (OSError(9999, "odd"), "the system refused it (odd)"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "there is not enough memory"),
        (sqlite3.DatabaseError("malformed"), "the index is damaged or is none (malformed)"),
        (ModuleNotFoundError("No module", name="pymilvus.client"), "pip install 'dciml[milvus]'"),
        (ImportError("odd"), "a package is missing"),
        (ImportError("lib.so: failed to map segment from shared object"), "there is not enough memory"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), "bytes that are not UTF-8"),
        (RecursionError(), "nested too deeply"),
        (OverflowError("int too large"), "a number is out of range (int too large)"),
        (UnicodeEncodeError("ascii", "ü", 0, 1, "no"), "PYTHONUTF8=1"),
    ],
)
def test_refusals_are_explained(error: Exception, said: str) -> None:
    assert said in str(explained(error))


def test_causes_are_looked_at_and_own_errors_kept() -> None:
    own = DataError("it cannot be", where="x", mend="mend it")
    outer = RuntimeError("outer")
    outer.__cause__ = own
    assert explained(outer) is own
    full = ValueError("outer")
    full.__cause__ = OSError(errno.ENOSPC, "x")
    assert "disk is full" in str(explained(full))
    for ours in (KeyError("x"), ValueError("out of memory is no word"), sqlite3.ProgrammingError("x")):
        assert explained(ours) is None


def test_full_disk_is_known_in_sqlite_too() -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert "the disk is full" in str(explained(error))


def test_extras_exist() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for extra in set(EXTRAS.values()):
        assert f"\n{extra} = [" in text


def run(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import dciml.cli.app\ndef app():\n    {body}\ndciml.cli.app.app = app\nfrom dciml.cli import main\nmain()"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_command_line_tells_what_was_refused_and_shows_more_when_asked(tmp_path: Path) -> None:
    body = "raise OSError(28, 'x', 'here')"
    told = run(body)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("dciml: here: the disk is full. To mend it: ")
    assert "Traceback" in run(body, DCIML_TRACEBACK="1").stderr
    secret = "import sys; sys.argv = ['dciml', 'serve', 'x', '--token', 's3cret']; raise KeyError('odd')"
    fault = run(secret, TMPDIR=str(tmp_path))
    assert fault.returncode == 70
    assert len(fault.stderr.splitlines()) == 1
    (details,) = tmp_path.iterdir()
    assert str(details) in fault.stderr
    assert "KeyError: 'odd'" in details.read_text()
    assert details.read_text().startswith("dciml serve\n")
