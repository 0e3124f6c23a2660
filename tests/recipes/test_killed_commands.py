"""Commands that are killed at any moment leave nothing behind that the next call does not remove, and then succeed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.datasets.folder import DataFolder
from dciml.features.extract import merge_stores
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.files import PART_SUFFIX
from dciml.index import ClipIndex, verify_index

KILLS = 12


def start(place: Path, *line: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dciml", *line]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_often(place: Path, out: str, *line: str) -> None:
    """Kill a command that makes `out` at random moments of its work, then let it end, and look around."""
    before = {path.name for path in place.iterdir()}
    begin = time.monotonic()
    assert start(place, *line, "--out", "whole").wait() == 0
    seconds, draw, killed = time.monotonic() - begin, random.Random(0), 0
    for number in range(KILLS):
        begin = time.monotonic()
        process = start(place, *line, "--out", out)
        try:
            process.wait(draw.uniform(0.4, 1.0) * seconds)
            seconds = time.monotonic() - begin  # it was faster than what was measured before
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if number % 3 else signal.SIGTERM)
            killed += process.wait() != 0
        if (place / out).exists():  # it was done: whole
            (place / out).rename(place / f"done-{number}")
    assert killed >= 1
    assert start(place, *line, "--out", out).wait() == 0
    left = {path.name for path in place.iterdir()} - before
    assert not [name for name in left if name.endswith(PART_SUFFIX)]
    assert left - {f"done-{number}" for number in range(KILLS)} == {"whole", out}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for number in range(400):
            rows = rng.standard_normal((60, 32)).astype(np.float32)
            file.create_dataset(f"v{number}", data=rows).attrs["duration"] = 60.0
    lines = ["video,sentence\n", *(f"v{number},A dog runs to number {number}.\n" for number in range(400))]
    (tmp_path / "s.csv").write_text("".join(lines))
    return tmp_path


@pytest.mark.slow
def test_killed_imports_leave_nothing(place: Path) -> None:
    kill_often(place, "d", "import", "records", "--split", "train=s.csv", "--features", "f.h5")
    found, whole = (DataFolder.open(place / name).store for name in ("d", "whole"))
    assert found.video_ids == whole.video_ids
    assert all(found.entry(video_id).crc32 == whole.entry(video_id).crc32 for video_id in whole.video_ids)
    assert found.verify() == []


@pytest.mark.slow
def test_killed_merges_leave_nothing(place: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        with FeatureStoreWriter(place / name, StoreManifest("net", 32), commit_every=100) as writer:
            for number in range(300):
                writer.append(f"{name}{number}", rng.standard_normal((40, 32)), 40.0)
    kill_often(place, "m", "merge-stores", "one", "two")
    assert FeatureStore.open(place / "m").verify() == []
    assert (
        FeatureStore.open(place / "m").fingerprint
        == merge_stores([place / "one", place / "two"], place / "x").fingerprint
    )


@pytest.mark.slow
def test_killed_indexing_leaves_nothing(place: Path) -> None:
    line = ("import", "records", "--split", "train=s.csv", "--features", "f.h5", "--out", "data")
    assert start(place, *line).wait() == 0
    assert start(place, "baseline", "shared-space", "data", "--out", "model", "--epochs", "1").wait() == 0
    kill_often(place, "i", "index", "model", "data")
    assert verify_index(place / "i") == []
    assert len(ClipIndex.open(place / "i")) == 400
