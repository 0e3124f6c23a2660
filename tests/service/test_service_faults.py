"""Uploads on a disk that is full or fails at any operation: the index, its files and the features stay one whole."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from fault_layer import Crash, Faults, Mode

from dciml.index import ClipIndex, verify_index
from dciml.service import adding
from dciml.service.adding import Library
from dciml.service.encode import encode
from dciml.service.jobs import Job
from dciml.service.live import LiveCorpus
from dciml.service.settings import ServiceSettings

NOTHING = b"\0\0\0\x08free"  # a box without meaning makes the content one that the index does not hold


class AtOnce:
    """Does each job when it is given, in this thread."""

    def submit(self, job: Job, work: Callable[[Job], None]) -> None:
        work(job)

    def pending_ids(self) -> set[str]:
        return set()

    def ended_by(self, end: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


class HereLibrary(Library):
    """Encodes in this process, so that the failing files are those of the encoder too."""

    def _encode(self, job: Job, new: Any) -> None:
        order = adding.EncodeOrder(
            str(new.file), job.video_id or "", str(self.added.store), str(new.final.absolute()),
            str(self.corpus.now.index.store_path()), [], "cpu",
        )  # fmt: skip
        encode(order, lambda _: None)


def library_of(folder: Path) -> Library:
    settings = ServiceSettings(folder / "index", cache=folder / "cache", poll_seconds=0)
    return HereLibrary(settings, LiveCorpus(settings), AtOnce())  # type: ignore[arg-type]


def upload(library: Library, content: bytes) -> None:
    library.add_upload("new.mp4", io.BytesIO(content))


def state(folder: Path, content: bytes) -> tuple[bool, list[str]]:
    """Is the video in the index, and which files are kept?"""
    assert verify_index(folder / "index") == []
    index, kept = ClipIndex.open(folder / "index"), folder / "index.added" / "videos"
    is_entered = "new" in index
    if is_entered:
        assert Path(index.video("new").media_path or "").read_bytes() == content
    return is_entered, sorted(file.name for file in kept.iterdir()) if kept.exists() else []


@pytest.fixture(scope="module")
def template(served: Path, tmp_path_factory: pytest.TempPathFactory, edited: Any) -> Path:
    folder = tmp_path_factory.mktemp("template") / "own"
    shutil.copytree(served, folder)
    with edited(folder / "index") as connection:
        for table, column in (("videos", "media_absolute"), ("stores", "absolute")):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(served), "/gone")
            )
    return folder


def try_each(template: Path, place: Path, modes: tuple[Mode, ...], step: int) -> None:
    content = (template / "videos" / "v1.mp4").read_bytes() + NOTHING
    counting = Faults(shutil.copytree(template, place / "clean"))
    library = library_of(place / "clean")
    with counting.in_force():
        upload(library, content)
    library.close()
    assert state(place / "clean", content) == (True, ["new.mp4"])
    for mode in modes:
        for number in range(0, len(counting.log), step):
            folder = place / "tried"
            shutil.copytree(template, folder)
            library, raised = library_of(folder), None
            faults = Faults(folder, number, mode, errno.EIO if mode == "once" else errno.ENOSPC)
            with faults.in_force():
                try:
                    upload(library, content)
                except BaseException as error:
                    raised = error
            library.close()
            said = f"{mode} at {number} ({faults.log[-1]}), raised {raised!r}"
            assert raised is None or isinstance(raised, Exception | Crash), said
            is_entered, kept = state(folder, content)
            if mode == "full":
                assert kept == (["new.mp4"] if is_entered else []), said
            if not is_entered:
                if mode != "full":  # another mode may leave the file, which keeps its name taken
                    (folder / "index.added" / "videos" / "new.mp4").unlink(missing_ok=True)
                again = library_of(folder)
                upload(again, content)
                again.close()
                assert state(folder, content) == (True, ["new.mp4"]), said
            shutil.rmtree(folder)


def test_an_upload_counts_as_a_whole_or_not_at_all_on_a_full_disk(template: Path, tmp_path: Path) -> None:
    try_each(template, tmp_path, ("full",), step=12)


@pytest.mark.slow
def test_an_upload_counts_as_a_whole_or_not_at_all_whatever_fails(template: Path, tmp_path: Path) -> None:
    try_each(template, tmp_path, ("once", "full", "short", "dead", "crash"), step=1)


def test_a_file_stays_when_the_change_was_committed_before_it_failed(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(template, tmp_path / "own"))
    library, content = library_of(folder), (folder / "videos" / "v1.mp4").read_bytes() + NOTHING
    real = library.corpus.change

    def change(work: Any) -> None:
        real(work)
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(library.corpus, "change", change)
    with pytest.raises(OSError, match="the disk is gone"):
        upload(library, content)
    library.close()
    assert state(folder, content) == (True, ["new.mp4"])
