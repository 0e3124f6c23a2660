"""Locks of folders: one process at a time, gone with it, and a word about who has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dciml.errors import DataError
from dciml.locks import LOCK_FILE, hold, is_free, take

HOLDER = """
import sys, time
from pathlib import Path
from dciml.locks import take
lock = take(Path(sys.argv[1]), "counting stars")
print("held", flush=True)
time.sleep(60)
"""


def test_lock_names_its_holder_and_is_gone_when_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not is_free(tmp_path / LOCK_FILE)
        with pytest.raises(
            DataError, match=rf"in use by process {holder.pid} \(counting stars: .*, since 20"
        ):
            take(tmp_path, "counting sheep")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert is_free(tmp_path / LOCK_FILE)
    take(tmp_path, "counting sheep").close()


def test_lock_is_not_inherited_by_programs_that_its_holder_starts(tmp_path: Path) -> None:
    with hold(tmp_path, "starting something"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        take(tmp_path, "going on").close()
    finally:
        child.kill()
        child.wait()


def test_locks_of_other_names_do_not_exclude_each_other(tmp_path: Path) -> None:
    with (
        hold(tmp_path, "one thing"),
        hold(tmp_path, "another", name=".other"),
        pytest.raises(DataError, match="another"),
    ):
        take(tmp_path, "a third", name=".other", mend="look elsewhere")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"process": "x"}', b"[" * 5000])
def test_unreadable_signature_is_another_process(tmp_path: Path, content: bytes) -> None:
    with hold(tmp_path, "something"):
        (tmp_path / LOCK_FILE).write_bytes(content)
        with pytest.raises(DataError, match="in use by another process"):
            take(tmp_path, "something else")


def test_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("somebody's")
    (tmp_path / LOCK_FILE).symlink_to(other)
    with pytest.raises(DataError, match="cannot be locked"):
        take(tmp_path, "writing")
    assert other.read_text() == "somebody's"


def test_folder_that_cannot_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be locked for writing"):
        take(tmp_path / "missing", "writing")
    assert not os.listdir(tmp_path)
