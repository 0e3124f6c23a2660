"""Folders of .npy and .npz files, joined features and other names of the same videos."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.sources.arrays import ArrayFolderSource
from dciml.features.sources.source import JoinedSource, open_features, with_names_of, write_store
from dciml.features.store import FeatureStoreWriter, StoreManifest


def make_folder(folder: Path, **videos: np.ndarray) -> Path:
    folder.mkdir()
    for name, rows in videos.items():
        np.save(folder / f"{name}.npy", rows)
    return folder


def test_folder_of_npy_becomes_a_store(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "i3d", AO8RW=np.ones((5, 1, 1, 3), np.float32), BBBBB=np.zeros((2, 3)))
    (folder / "readme.txt").write_text("ignored")
    source = open_features(folder, "charades_sta", rows_per_second=1.5)
    assert isinstance(source, ArrayFolderSource)
    assert (source.video_ids, source.num_rows("AO8RW")) == (("AO8RW", "BBBBB"), 5)
    store = write_store(source, tmp_path / "s", source.video_ids, {"AO8RW": 3.0, "BBBBB": 1.0})
    assert store.rows("AO8RW").shape == (5, 3)
    assert (store.manifest.encoder, store.source("AO8RW")) == ("imported:charades_sta", "AO8RW.npy")


def test_npz_gives_its_features_or_its_only_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a_0.0_150.0.npz", features=np.ones((75, 4)), other=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", rows=np.ones((2, 4)))
    source = ArrayFolderSource(tmp_path, "clip", 0.5)
    assert [rows.shape for rows in source.read(["a_0.0_150.0", "b"])] == [(75, 4), (2, 4)]


def test_npz_without_features_names_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", last_hidden_state=np.ones((2, 4)), pooler_output=np.ones(4))
    message = (
        r"a\.npz, field features: there is no array 'features'; the arrays are: last_hidden_state, pooler"
    )
    with pytest.raises(DataError, match=message):
        ArrayFolderSource(tmp_path, "e", None).num_rows("a")


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("features.npy", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"", "not a readable NumPy array"),
        ("a.npy", b"not an array", "not a readable NumPy array|holds Python objects"),
        ("a.npy", npy_header("(2, 3)") + b"short", "not a readable NumPy array"),
        ("a.npy", npy_header("(100000000, 100000)"), "not a readable NumPy array"),
        ("a.npy", npy_header("(3,)") + bytes(12), r"the shape \(3,\), not \[T, D\]"),
        ("a.npy", npy_header("(0, 3)"), r"it has no rows \(its shape is \(0, 3\)\)"),
        ("a.npy", npy_header("__import__('os').getcwd()"), "not a readable NumPy array"),
        ("a.npz", b"PK\x03\x04 but not a zip archive", "not a readable zip archive of arrays"),
        ("a.npz", zipped(npy_header("(2, 3)") + b"short"), "not a readable zip archive of arrays"),
        (
            "a.npz",
            zipped(b"no array"),
            "not a readable zip archive of arrays|holds Python objects|not \\[T, D\\]",
        ),
    ],
)
def test_damaged_array_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*({message})"):
        next(ArrayFolderSource(tmp_path, "e", None).read(["a"]))


class Touch:
    """What a malicious pickle could hold: a call that leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_of_objects_are_never_unpickled(tmp_path: Path, ending: str) -> None:
    folder, trap = tmp_path / "f", tmp_path / "trap"
    folder.mkdir()
    values = np.array([Touch(trap)], dtype=object)
    if ending == "npy":
        np.save(folder / "a.npy", values, allow_pickle=True)
    else:
        np.savez(folder / "a.npz", features=values)
    with pytest.raises(
        DataError, match=rf"a\.{ending}: the file holds Python objects, which are never loaded"
    ):
        next(ArrayFolderSource(folder, "e", None).read(["a"]))
    assert not trap.exists()


def test_folder_without_arrays_and_a_video_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.npy or \.npz file"):
        ArrayFolderSource(tmp_path, "e", None)
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    np.savez(tmp_path / "a.npz", features=np.ones((2, 2)))
    with pytest.raises(DataError, match=r"the video 'a' has two files, a\.npy and a\.npz"):
        ArrayFolderSource(tmp_path, "e", None)


def test_joined_features_are_scaled_cut_at_the_shortest_and_put_side_by_side(tmp_path: Path) -> None:
    slowfast = make_folder(tmp_path / "slowfast", a=np.full((75, 3), 7.0), b=np.ones((9, 3)))
    clip = make_folder(tmp_path / "clip", a=np.full((74, 2), -2.0), c=np.ones((9, 2)))
    source = open_features([slowfast, clip], "qvhighlights", rows_per_second=0.5)
    assert isinstance(source, JoinedSource)
    assert (source.video_ids, source.num_rows("a"), source.rows_per_second) == (("a",), 74, 0.5)
    assert source.encoder == "imported:slowfast+imported:clip"
    rows = next(source.read(["a"]))
    assert rows.shape == (74, 5)
    np.testing.assert_allclose(rows[0], [3**-0.5] * 3 + [-(2**-0.5)] * 2, rtol=1e-6)


def test_joined_features_of_other_grids_or_other_videos_are_refused(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", a=np.ones((75, 3)))
    two = make_folder(tmp_path / "two", a=np.ones((150, 3)))
    other = make_folder(tmp_path / "other", z=np.ones((75, 3)))
    with pytest.raises(DataError, match=r"a\.npy: the video 'a' has 75 and 150 rows in the joined features"):
        next(open_features([one, two], "x").read(["a"]))
    with pytest.raises(DataError, match="no video is in all of these features"):
        open_features([one, other], "x")


@pytest.mark.parametrize(
    ("have", "wanted"),
    [("s30-d52", "s30-d52.avi"), ("s30-d52.avi", "s30-d52"), ("QOlSCBRmfWY", "v_QOlSCBRmfWY"), ("v_x", "x")],
)
def test_names_that_differ_in_ending_or_prefix_are_matched(tmp_path: Path, have: str, wanted: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(have, data=np.full((2, 3), 5.0)).attrs["duration"] = 4.0
        file.create_dataset("kept", data=np.ones((2, 3)))
    source = with_names_of(open_features(tmp_path / "x.h5", "x"), [wanted, "kept", "absent"])
    assert set(source.video_ids) == {wanted, "kept"}
    assert (source.durations, source.num_rows(wanted)) == ({wanted: 4.0}, 2)
    store = write_store(source, tmp_path / "s", [wanted], {})
    assert store.rows(wanted).tolist() == np.full((2, 3), 5.0).tolist()


def test_names_that_could_be_two_videos_are_left_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in ("a", "b.mp4", "b.avi"):
            file.create_dataset(name, data=np.ones((2, 3)))
    source = open_features(tmp_path / "x.h5", "x")
    # Two annotated videos would share the features of `a`; `b` might be either of two.
    assert with_names_of(source, ["a.mp4", "a.avi", "b"]) is source
    assert with_names_of(source, ["a", "a.mp4"]) is source


def test_store_as_source_keeps_manifest_origin_and_duration(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("net", 2, 4.0)) as writer:
        writer.append("a", np.ones((3, 2)), 0.75, source="/videos/a.mp4")
    source = open_features(tmp_path / "s", "x")
    copied = write_store(source, tmp_path / "t", ["a"], {})
    assert copied.manifest == StoreManifest("net", 2, 4.0)
    assert (copied.duration_seconds("a"), copied.source("a"), source.num_rows("a")) == (
        0.75,
        "/videos/a.mp4",
        3,
    )


def test_row_that_no_store_can_hold_names_its_file(tmp_path: Path) -> None:
    source = open_features(make_folder(tmp_path / "f", a=np.ones((2, 3)), b=np.ones((2, 4))), "x")
    with pytest.raises(DataError, match=r"b\.npy: .*shape \(2, 4\), not \(T, 3\)"):
        write_store(source, tmp_path / "s", ["a", "b"], {"a": 1.0, "b": 1.0})
    with pytest.raises(DataError, match=r"a\.npy: the duration of the video is not known.*--rows-per-second"):
        write_store(source, tmp_path / "t", ["a"], {})
