"""Whose a folder is, whole folders, and what killed processes leave behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dciml.errors import DataError
from dciml.explain import explained
from dciml.files import PART_SUFFIX, atomic_folder, atomic_path, remove_leftovers
from dciml.folders import MARKERS, how_to_add, refuse_foreign
from dciml.locks import LOCK_FILE
from dciml.recipes.report import Submission, refuse_other_than_report, refuse_other_than_submission

KILLED = """
import os, signal, sys
from pathlib import Path
from dciml.files import atomic_folder, atomic_path
place = Path(sys.argv[1])
with atomic_folder(place / "whole") as folder, atomic_path(place / "file.json") as file:
    (folder / "half").write_text("half")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_free_and_own_folders_are_taken_and_others_refused(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "new", "model.json")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model.json").write_text("{}")
    (tmp_path / "own" / "more").write_text("x")
    refuse_foreign(tmp_path / "own", "model.json")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / LOCK_FILE).touch()
    (tmp_path / "killed" / f".x.abcdefgh{PART_SUFFIX}").touch()
    refuse_foreign(tmp_path / "killed", "model.json")


@pytest.mark.parametrize("marker", [name for name in MARKERS if name != "model.json"])
def test_folder_of_another_kind_is_named(tmp_path: Path, marker: str) -> None:
    (tmp_path / marker).write_text("{}")
    with pytest.raises(DataError, match=f"not a model folder: it is {MARKERS[marker]}"):
        refuse_foreign(tmp_path, "model.json")


def test_files_links_and_things_of_the_user_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, said in (
        (tmp_path, "such as"),
        (tmp_path / "thesis.txt", "this is a file"),
        (tmp_path / "dangling", "leads nowhere"),
    ):
        with pytest.raises(DataError, match=said):
            refuse_foreign(path, "model.json")


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "all").write_text("all")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "all"]
    with pytest.raises(DataError, match="something here already"), atomic_folder(tmp_path / "a"):
        raise AssertionError("it must not come to this")


def test_folder_that_somebody_else_finished_first_is_not_replaced(tmp_path: Path) -> None:
    def be_late() -> None:
        with atomic_folder(tmp_path / "a"):
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "theirs").write_text("theirs")

    with pytest.raises(DataError, match="something here already"):
        be_late()
    assert (tmp_path / "a" / "theirs").read_text() == "theirs"


def test_what_a_killed_process_left_goes_with_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_folder(tmp_path / "whole"):
        pass
    left = [path.name for path in tmp_path.iterdir() if path.name.endswith(PART_SUFFIX)]
    assert len(left) == 1  # of the file, which is young: its writer may have replaced it a moment ago
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 120)
    assert [path.name for path in remove_leftovers(tmp_path)] == left
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_what_a_living_process_writes_stays_and_so_does_what_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 120)
    mine = tmp_path / ".hidden.part"
    mine.write_text("mine")
    (tmp_path / f".link.abcdefgh{PART_SUFFIX}").symlink_to(mine)
    with atomic_path(tmp_path / "file") as file, atomic_folder(tmp_path / "folder") as folder:
        assert remove_leftovers(tmp_path) == []
        assert file.exists()
        assert folder.exists()
    assert mine.read_text() == "mine"


def test_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    with atomic_path(tmp_path / ("映" * 84)) as file:
        file.write_text("x")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("refuse_other", [refuse_other_than_report, refuse_other_than_submission])
def test_a_report_is_written_over_nothing_else(refuse_other: Callable[[Path], None], tmp_path: Path) -> None:
    refuse_other(tmp_path / "new.json")
    (tmp_path / "empty.json").touch()
    refuse_other(tmp_path / "empty.json")
    (tmp_path / "model.json").write_text('{"format": "dciml model"}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00 ftypisom")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("model.json", "list.json", "film.mp4", "folder", "dangling", "pipe"):
        with pytest.raises(DataError, match="would be lost"):
            refuse_other(tmp_path / name)


def test_a_report_and_a_submission_are_replaced_by_their_own_kind(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"tables": [], "format": "dciml-report-0"}')
    refuse_other_than_report(tmp_path / "report.json")
    Submission.of_corpus(["a"]).write(tmp_path / "submission.json", [])
    refuse_other_than_submission(tmp_path / "submission.json")
    for refuse, other in ((refuse_other_than_report, "submission"), (refuse_other_than_submission, "report")):
        with pytest.raises(DataError, match="would be lost"):
            refuse(tmp_path / f"{other}.json")


@pytest.mark.parametrize("whole", [atomic_path, atomic_folder])
def test_a_full_disk_names_the_file_that_could_not_be_written(
    whole: Callable[..., Any], tmp_path: Path
) -> None:
    def fail() -> None:
        with whole(tmp_path / "wanted"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert str(explained(caught.value)).startswith(f"{tmp_path / 'wanted'}: the disk is full")


def test_a_video_comes_into_the_index_of_a_home_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "home.json").write_text("{}")
    for index in (tmp_path / "home" / "index", tmp_path / "home" / "taught-1" / "index"):
        assert how_to_add(index) == "save it in a folder of videos that `dciml serve` reads here"
    assert how_to_add(tmp_path / "index") == "add it with `dciml index-add`"
