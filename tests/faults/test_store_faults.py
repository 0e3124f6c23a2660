"""The feature store on a disk that is full or fails at any operation."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from fault_layer import Faults
from sweep import Call, sweep, sweep_room

from dciml.errors import DataError
from dciml.features.extract import merge_stores
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest

MANIFEST = StoreManifest("net", 4)


def rows_of(name: str) -> np.ndarray:
    return np.full((3, 4), ord(name), dtype=np.float16)


def contents(path: Path) -> dict[str, bytes] | None:
    if not (path / "manifest.json").exists():
        return None
    store = FeatureStore.open(path)
    assert store.verify() == []
    return {name: store.rows(name).tobytes() for name in store.video_ids}


def write(path: Path, names: str, commit_every: int = 1, replace: bool = False) -> None:
    with FeatureStoreWriter(path, MANIFEST, commit_every=commit_every) as writer:
        for name in names:
            writer.append(name, rows_of(name), 1.5, replace=replace)


def test_a_store_keeps_its_last_commit_whatever_fails(tmp_path: Path) -> None:
    begin = Call(lambda f: None, lambda f: write(f / "s", "a"), lambda f: contents(f / "s") or None)
    assert sweep(begin, tmp_path / "new") > 8
    more = Call(lambda f: write(f / "s", "ab"), lambda f: write(f / "s", "c"), lambda f: contents(f / "s"))
    assert sweep(more, tmp_path / "more") > 4
    many = Call(
        lambda f: write(f / "s", "a"), lambda f: write(f / "s", "bcd", 3), lambda f: contents(f / "s")
    )
    sweep(many, tmp_path / "many")


def test_replaced_rows_are_the_old_or_the_new_whatever_fails(tmp_path: Path) -> None:
    def replace(folder: Path) -> None:
        with FeatureStoreWriter(folder / "s", MANIFEST) as writer:
            writer.append("a", rows_of("z"), 2.0, replace=True)

    sweep(Call(lambda f: write(f / "s", "ab"), replace, lambda f: contents(f / "s")), tmp_path)


@pytest.mark.slow
def test_merged_stores_appear_whole_whatever_fails(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        write(folder / "one", "a")
        write(folder / "two", "b")

    def merge(folder: Path) -> object:
        return merge_stores([folder / "one", folder / "two"], folder / "all")

    sweep(Call(prepare, merge, lambda f: contents(f / "all")), tmp_path)


def test_a_store_keeps_its_last_commit_when_the_system_refuses_to_grow(tmp_path: Path) -> None:
    def large(folder: Path) -> None:
        with FeatureStoreWriter(folder / "s", MANIFEST) as writer:
            writer.append("b", np.ones((2000, 4)), 9.0)

    sweep_room(Call(lambda f: write(f / "s", "a"), large, lambda f: contents(f / "s")), tmp_path, 4000)


@pytest.mark.parametrize("at", range(4))
def test_a_writer_goes_on_after_a_failure_when_there_is_room_again(tmp_path: Path, at: int) -> None:
    """The line of the index must not be written a second time when the file is closed."""
    write(tmp_path, "a")
    faults = Faults(tmp_path, mode="short")
    with faults.in_force(), FeatureStoreWriter(tmp_path, MANIFEST) as writer:
        faults.arm(at)
        try:
            writer.append("b", rows_of("b"), 1.0)
        except OSError:
            writer.append("b", rows_of("b"), 1.0)
        writer.append("c", rows_of("c"), 1.0)
    assert contents(tmp_path) == {name: rows_of(name).tobytes() for name in "abc"}


@pytest.mark.parametrize("at", range(4))
def test_closing_after_a_failure_keeps_what_was_committed(tmp_path: Path, at: int) -> None:
    faults = Faults(tmp_path, mode="short")
    with faults.in_force():
        writer = FeatureStoreWriter(tmp_path, MANIFEST)
        writer.append("a", rows_of("a"), 1.0)
        faults.arm(at)
        with pytest.raises(OSError, match="No space"):
            writer.append("b", rows_of("b"), 1.0)
        writer.close()
    assert list(contents(tmp_path) or ()) == ["a"]


def test_a_writer_that_lost_earlier_videos_takes_no_more(tmp_path: Path) -> None:
    write(tmp_path, "a")
    faults = Faults(tmp_path)
    with faults.in_force(), FeatureStoreWriter(tmp_path, MANIFEST, commit_every=3) as writer:
        writer.append("b", rows_of("b"), 1.0)
        writer.append("c", rows_of("c"), 1.0)
        faults.arm(1)
        with pytest.raises(OSError, match="No space"):
            writer.append("d", rows_of("d"), 1.0)
        with pytest.raises(DataError, match="the last 2 videos before it were not kept"):
            writer.append("e", rows_of("e"), 1.0)
    assert list(contents(tmp_path) or ()) == ["a"]
    write(tmp_path, "bcd", 3)
    assert list(contents(tmp_path) or ()) == list("abcd")


def test_a_writer_that_cannot_cut_back_takes_no_more(tmp_path: Path) -> None:
    write(tmp_path, "a")
    faults = Faults(tmp_path, mode="dead", code=errno.EIO)
    with faults.in_force(), FeatureStoreWriter(tmp_path, MANIFEST) as writer:
        faults.arm(2)
        with pytest.raises(OSError, match="Input/output"):
            writer.append("b", rows_of("b"), 1.0)
        with pytest.raises(DataError, match="could not be cut off"):
            writer.append("c", rows_of("c"), 1.0)
    assert list(contents(tmp_path) or ()) == ["a"]
