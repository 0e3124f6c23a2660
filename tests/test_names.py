from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.video_files import find_videos
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


@pytest.mark.parametrize(("stored", "asked"), [("cafe\u0301", "caf\u00e9"), ("caf\u00e9", "cafe\u0301")])
def test_a_store_knows_a_video_whatever_way_its_accents_are_written(
    tmp_path: Path, stored: str, asked: str
) -> None:
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("net", 4)) as writer:
        writer.append(stored, np.ones((3, 4)), 3.0)
        with pytest.raises(DataError, match="already holds"):
            writer.append(asked, np.ones((3, 4)), 3.0)
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("net", 4)) as writer:
        writer.append(asked, np.full((2, 4), 2.0), 2.0, replace=True)
    store = FeatureStore.open(tmp_path / "s")
    assert asked in store
    assert store.video_ids == (stored,)
    assert store.rows(asked).tolist() == [[2.0] * 4] * 2
    assert store.duration_seconds(asked) == 2.0


def test_extraction_names_videos_in_one_form_and_refuses_two_that_look_the_same(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.mp4").touch()
    assert list(find_videos([tmp_path])) == ["caf\u00e9"]
    (tmp_path / "caf\u00e9.mp4").touch()
    with pytest.raises(DataError, match="would both have the id"):
        find_videos([tmp_path])
