from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.recipes.prepare import ImportOptions, prepare_records


def features(path: Path, *names: str) -> Path:
    with h5py.File(path, "w") as file:
        for name in names:
            file.create_dataset(name, data=np.ones((3, 4), dtype=np.float32)).attrs["duration"] = 3.0
    return path


def imported(tmp_path: Path, table: str, *names: str) -> tuple[str, ...]:
    (tmp_path / "s.csv").write_text(f"video,sentence\n{table},A dog runs.\n")
    source = features(tmp_path / "f.h5", *names)
    summary = prepare_records({"train": tmp_path / "s.csv"}, source, tmp_path / "d", "n", ImportOptions())
    return tuple(query.video_id for query in summary.folder.queries("train"))


@pytest.mark.parametrize(("own", "theirs"), [("cafe\u0301", "caf\u00e9"), ("caf\u00e9", "cafe\u0301.mp4")])
def test_names_that_look_the_same_are_joined(tmp_path: Path, own: str, theirs: str) -> None:
    assert imported(tmp_path, theirs, own) == (own,)


def test_two_names_that_look_the_same_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two names look the same, 'cafe\\u0301|'caf\\xe9'"):
        imported(tmp_path, "x", "cafe\u0301", "caf\u00e9")


def test_a_miss_lists_the_nearest_names(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("video,sentence\nkitchen1,A dog.\nkitchenn_02,A cat.\n")
    source = features(tmp_path / "f.h5", "kitchen1", "kitchen_02")
    with pytest.raises(DataError, match=r"'kitchenn_02' has no features .*name it as .*'kitchen_02'"):
        prepare_records({"train": tmp_path / "s.csv"}, source, tmp_path / "d", "n", ImportOptions())
