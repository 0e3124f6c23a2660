"""The index on a disk that is full or fails at any operation: built, changed, compacted, copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweep import Call, sweep, sweep_room

from dciml.index import ClipIndex, IndexOptions, VideoDetails

CLIPS, WIDTH = 2, 8


def vectors_of(names: str) -> np.ndarray:
    return np.array([ord(name) for name in names])[:, None, None] * np.ones((1, CLIPS, WIDTH))


def build(folder: Path, names: str = "abcdef", exact_videos: int = 4) -> ClipIndex:
    index = ClipIndex.create(
        folder / "index", num_clips=CLIPS, width=WIDTH, fingerprint="f", model_folder=folder, store_path=folder,
        options=IndexOptions(exact_videos=exact_videos, code_bytes=2),
    )  # fmt: skip
    index.add(
        list(names), vectors_of(names), np.ones(len(names)), None, [VideoDetails(tags=("t",))] * len(names)
    )
    return index


def opened(folder: Path, name: str = "index") -> ClipIndex:
    return ClipIndex.open(folder / name)


def state(folder: Path, name: str = "index") -> Any:
    """What a reader sees, and how often the index was changed."""
    if not (folder / name / "catalogue.sqlite").exists():
        return None
    index = opened(folder, name)
    assert index.verify() == []
    found = index.search(np.ones((1, WIDTH)), 100)[0]
    return index.generation, sorted((match.video_id, match.score) for match in found)


def add(folder: Path) -> None:
    opened(folder).add(["g", "h"], vectors_of("gh"), [1, 1])


def replace(folder: Path) -> None:
    opened(folder).add(["a"], vectors_of("z"), [1], replaces=["a", "b"])


def remove(folder: Path) -> None:
    opened(folder).remove(["a", "f"])


def prepare_holes(folder: Path) -> None:
    index = build(folder)
    index.add(["g", "h"], vectors_of("gh"), [1, 1])
    index.remove(["a", "g"])


def compact(folder: Path) -> None:
    opened(folder).compact()


def back_up(folder: Path) -> None:
    opened(folder).back_up(folder / "copy")


CALLS = {
    "add": Call(build, add, state),
    "replace": Call(build, replace, state),
    "remove": Call(build, remove, state),
    "compact": Call(prepare_holes, compact, state),
    "backup": Call(build, back_up, lambda folder: state(folder, "copy")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_change_counts_as_a_whole_or_not_at_all_whatever_fails(tmp_path: Path, call: Call) -> None:
    assert sweep(call, tmp_path, modes=("full", "crash"), step=9) > 4


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_change_counts_as_a_whole_at_every_operation_and_in_every_way(tmp_path: Path, call: Call) -> None:
    assert sweep(call, tmp_path) > 4


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_change_counts_as_a_whole_when_the_system_refuses_to_grow(tmp_path: Path, call: Call) -> None:
    """SQLite writes its file itself; the limit stops it at each of its pages."""
    sweep_room(call, tmp_path)
