"""Searching goes on while others change, compact and copy the index."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.index import ClipIndex, IndexOptions, VideoDetails, VideoFilter
from dciml.index.embedded import EmbeddedVectors

CLIPS, WIDTH = 2, 8


def make_index(folder: Path, exact_videos: int = 10_000) -> ClipIndex:
    index = ClipIndex.create(
        folder / "index",
        num_clips=CLIPS,
        width=WIDTH,
        fingerprint="abc",
        model_folder=folder / "model",
        store_path=folder / "store",
        options=IndexOptions(exact_videos=exact_videos, code_bytes=2),
    )
    index.add(["a", "b", "c"], vectors_of(1, 2, 3), [1, 2, 3], None, [VideoDetails(tags=("old",))] * 3)
    return index


def vectors_of(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None, None] * np.ones((1, CLIPS, WIDTH), dtype=np.float32)


def scores(index: ClipIndex) -> dict[str, float]:
    return {match.video_id: match.score / WIDTH for match in index.search(np.ones((1, WIDTH)), 100)[0]}


@pytest.mark.parametrize("exact_videos", [10_000, 1])
def test_open_index_answers_from_its_state_until_refreshed(tmp_path: Path, exact_videos: int) -> None:
    writer = make_index(tmp_path, exact_videos)
    reader = ClipIndex.open(writer.path)
    assert not reader.refresh()
    writer.remove(["a"])
    writer.add(["b", "d"], vectors_of(7, 8), [1, 1], replaces=["b"])
    assert scores(reader) == {"a": 1, "b": 2, "c": 3}
    assert reader.select(VideoFilter(tag="old")) == ("a", "b", "c")
    assert (reader.video("a").tags, reader.video("b").duration_seconds) == (("old",), 2.0)
    writer.compact()
    assert scores(reader) == {"a": 1, "b": 2, "c": 3}  # its files are deleted, but still mapped
    with pytest.raises(DataError, match="'a' has been removed since the index was opened"):
        reader.video("a")
    assert reader.refresh()
    assert scores(reader) == {"c": 3, "b": 7, "d": 8}
    assert reader.generation == writer.generation
    assert reader.select(VideoFilter(tag="old")) == ("c",)


def test_searches_on_other_threads_never_fail(tmp_path: Path) -> None:
    writer = make_index(tmp_path, exact_videos=4)
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            reader = ClipIndex.open(writer.path)
            while not done.is_set():
                found = scores(reader)
                assert found["c"] == 3
                reader.refresh()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(12):
        writer.add([f"x{number}"], vectors_of(-number), [1])
        if number % 4 == 3:
            writer.remove([f"x{number}"])
            writer.compact()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_backup_is_the_committed_state_and_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    index = make_index(tmp_path, exact_videos=1)
    index.back_up(tmp_path / "deep" / "copy")
    index.remove(["a"])
    index.compact()
    copy = ClipIndex.open(tmp_path / "deep" / "copy")
    assert scores(copy) == {"a": 1, "b": 2, "c": 3}
    assert copy.verify() == []
    assert copy.store_path() == tmp_path / "store"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["copy"]
    copy.add(["d"], vectors_of(4), [1])
    with pytest.raises(DataError, match="something here already"):
        index.back_up(copy.path)


def test_backup_begins_anew_when_the_index_is_compacted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path)
    index.remove(["a"])
    copy, calls = EmbeddedVectors.copy, []

    def compact_then_copy(backend: EmbeddedVectors, *arguments: object) -> None:
        if not calls:
            ClipIndex.open(index.path).compact()
        calls.append(True)
        copy(backend, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddedVectors, "copy", compact_then_copy)
    index.back_up(tmp_path / "copy")
    assert len(calls) == 2
    assert scores(ClipIndex.open(tmp_path / "copy")) == {"b": 2, "c": 3}


def test_files_of_a_writer_at_work_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(tmp_path)
    other = ClipIndex.open(index.path)
    settle, swept = EmbeddedVectors.settle, []

    def settle_while_another_sweeps(backend: EmbeddedVectors, *arguments: object, **named: object) -> None:
        settle(backend, *arguments, **named)  # type: ignore[arg-type]
        with other._catalogue.idle() as idle:
            swept.append(idle)

    monkeypatch.setattr(EmbeddedVectors, "settle", settle_while_another_sweeps)
    index.add(["d"], vectors_of(4), [1])
    assert swept == [False]
    assert scores(ClipIndex.open(index.path)) == {"a": 1, "b": 2, "c": 3, "d": 4}
