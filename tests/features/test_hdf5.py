"""HDF5 files into a store."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.sources.hdf5 import Hdf5Source, scan_hdf5
from dciml.features.sources.source import write_store
from dciml.features.store import FeatureStore


def make_file(path: Path, **videos: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for video_id, rows in videos.items():
            dataset = file.create_dataset(video_id, data=rows)
            dataset.attrs["duration"] = 10
            dataset.attrs["split"] = "train"
    return path


def import_hdf5(
    path: Path,
    store: Path,
    encoder: str,
    rate: float | None = None,
    durations: dict[str, float] | None = None,
    video_ids: list[str] | None = None,
) -> FeatureStore:
    source = Hdf5Source(path, encoder, rate)
    return write_store(source, store, source.video_ids if video_ids is None else video_ids, durations or {})


def test_import_keeps_rows_durations_and_manifest(tmp_path: Path) -> None:
    rows = {"a": np.random.default_rng(0).standard_normal((5, 3)), "b": np.ones((1, 3), np.float16)}
    store = import_hdf5(make_file(tmp_path / "x.h5", **rows), tmp_path / "s", "c3d", 1.5, {"b": 4.0})
    assert set(store.video_ids) == {"a", "b"}
    for video_id, expected in rows.items():
        np.testing.assert_array_equal(store.rows(video_id), expected.astype(np.float16))
    assert store.duration_seconds("a") == 10
    assert store.duration_seconds("b") == 4
    assert (store.manifest.encoder, store.manifest.width, store.manifest.rows_per_second) == ("c3d", 3, 1.5)


def test_import_takes_only_the_wanted_videos(tmp_path: Path) -> None:
    path = make_file(tmp_path / "x.h5", a=np.ones((2, 3)), b=np.ones((2, 9)))
    assert import_hdf5(path, tmp_path / "s", "e", video_ids=["a"]).video_ids == ("a",)
    with pytest.raises(DataError, match=r"x\.h5: none of the wanted videos has features here"):
        import_hdf5(path, tmp_path / "t", "e", video_ids=["c"])


def test_scan_tells_shape_duration_and_split(tmp_path: Path) -> None:
    video = scan_hdf5(make_file(tmp_path / "x.h5", a=np.ones((2, 3))))["a"]
    assert (video.shape, video.duration_seconds, video.split) == ((2, 3), 10.0, "train")


def test_group_around_one_dataset_counts_as_the_video(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("v_1").create_dataset("c3d_features", data=np.ones((2, 3)))
    store = import_hdf5(tmp_path / "x.h5", tmp_path / "s", "c3d", durations={"v_1": 3.0})
    assert store.video_ids == ("v_1",)


def test_group_of_several_datasets_stands_for_its_c3d_features_or_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("v_1")
        group.create_dataset("other", data=np.zeros((5, 9)))
        group.create_dataset("c3d_features", data=np.ones((2, 3)))
    source = Hdf5Source(tmp_path / "x.h5", "c3d", None)
    assert source.num_rows("v_1") == 2
    assert next(source.read(["v_1"])).tolist() == np.ones((2, 3)).tolist()
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_group("v_1")
    with pytest.raises(DataError, match=r"y\.h5, field v_1: this is not a dataset"):
        scan_hdf5(tmp_path / "y.h5")


def test_axes_of_length_one_between_rows_and_width_are_dropped(tmp_path: Path) -> None:
    store = import_hdf5(make_file(tmp_path / "x.h5", a=np.ones((4, 1, 1, 3))), tmp_path / "s", "i3d")
    assert store.rows("a").shape == (4, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([[1.0, np.nan, 0.0]]), "row 0, column 1: a value is nan"),
        (np.array([[1.0, -np.inf, 0.0]]), "row 0, column 1: a value is -inf"),
        (np.ones((2, 4)), r"shape \(2, 4\), not \(T, 3\)"),
        (np.ones((0, 3)), "no rows"),
        (np.ones(3), r"the array has the shape \(3,\), not \[T, D\]"),
        (np.ones((2, 3, 1)), r"the array has the shape \(2, 3, 1\), not \[T, D\]"),
    ],
)
def test_bad_dataset_is_refused_by_file_and_name(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    path = make_file(tmp_path / "x.h5", a=np.ones((2, 3)), bad=rows)
    with pytest.raises(DataError, match=rf"x\.h5, field bad: .*{message}"):
        import_hdf5(path, tmp_path / "s", "e")


def test_dataset_without_duration_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.ones((2, 3)))
    with pytest.raises(DataError, match="field a: the duration of the video is not known"):
        import_hdf5(tmp_path / "x.h5", tmp_path / "s", "e")


def test_duration_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.ones((2, 3))).attrs["duration"] = "long"
    with pytest.raises(DataError, match="field a, attribute duration: 'long' is not a number"):
        scan_hdf5(tmp_path / "x.h5")


def test_missing_empty_foreign_and_hollow_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        scan_hdf5(tmp_path / "none.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(DataError, match="the file is empty"):
        scan_hdf5(tmp_path / "empty.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        scan_hdf5(tmp_path / "text.h5")
    with pytest.raises(DataError, match="holds no dataset"):
        scan_hdf5(make_file(tmp_path / "hollow.h5"))
