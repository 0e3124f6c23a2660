from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.sources.hdf5 import Hdf5Source, scan_hdf5

ROWS = np.ones((3, 4), dtype=np.float32)


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(Hdf5Source(path, "e", None).read(["a"]))


@pytest.mark.parametrize(
    ("duration", "message"),
    [
        (float("nan"), "the duration is nan"),
        (-3.0, "the duration is -3"),
        ("long", "'long' is not a number"),
        ([1.0, 2.0], "is not a number"),
    ],
)
def test_impossible_duration_is_named(tmp_path: Path, duration: object, message: str) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("a", data=ROWS).attrs["duration"] = duration
    refused(tmp_path / "f.h5", rf"f\.h5, field a, attribute duration: .*{message}")


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(ROWS.tobytes())
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["a"] = ROWS
    with h5py.File(tmp_path / "storage.h5", "w") as file:
        file.create_dataset("a", (3, 4), "f4", external=[(str(tmp_path / "raw"), 0, 48)])
    refused(tmp_path / "storage.h5", "field a: the dataset is refused: its rows lie in another file")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "whole.h5"), "a")
    refused(tmp_path / "link.h5", "field a: this is an external link")
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["b"] = ROWS
        file["a"] = h5py.SoftLink("/b")
    refused(tmp_path / "soft.h5", "field a: this is a soft link")
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "whole.h5"), "a", (3, 4))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    refused(tmp_path / "virtual.h5", "field a: the dataset is refused: it is a virtual dataset")


def test_claims_beyond_the_file_are_refused_unread(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("a", (10**9, 512), "f4", chunks=(100, 512), compression="gzip")
    refused(tmp_path / "f.h5", r"field a: its shape \(1000000000, 512\) takes 2,048,000,000,000 bytes")
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file.create_dataset("a", (10**6, 512), "f4", chunks=(100, 512))
    refused(tmp_path / "g.h5", "but the file holds 0 of it")


@pytest.mark.parametrize("values", [["x", "y"], np.zeros(2, dtype=[("a", "f4")])])
def test_datasets_without_numbers_are_refused(tmp_path: Path, values: object) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"] = values
    refused(tmp_path / "f.h5", "field a: the dataset is refused: it holds no numbers")


def test_damaged_bytes_are_a_data_error_or_harmless(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name in "abc":
            dataset = file.create_dataset(name, data=ROWS, compression="gzip")
            dataset.attrs["duration"], dataset.attrs["split"] = 3.0, "train"
    whole = (tmp_path / "f.h5").read_bytes()
    random, failed = np.random.default_rng(3), 0
    for _ in range(150):
        content = bytearray(whole)
        for place in random.integers(8, len(content), 20):
            content[place] = random.integers(256)
        (tmp_path / "g.h5").write_bytes(content)
        try:
            list(Hdf5Source(tmp_path / "g.h5", "e", None).read(list(scan_hdf5(tmp_path / "g.h5"))))
        except DataError as error:
            failed += "g.h5" in str(error)
    assert failed > 20
