"""The feature store: what is kept, what a kill leaves, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.long_videos import WindowedStore, WindowRule, windows_of
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.store_format import FileStamp

MANIFEST = StoreManifest("test-encoder", 4, 2.0)


def some_rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float16)


def make_store(path: Path, lengths: dict[str, int]) -> FeatureStore:
    with FeatureStoreWriter(path, MANIFEST) as writer:
        for number, (video_id, count) in enumerate(lengths.items()):
            writer.append(video_id, some_rows(count, number), float(count), source=f"{video_id}.mp4")
    return FeatureStore.open(path)


def test_store_gives_back_what_was_appended(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", {"b": 3, "a": 1, "c": 5})
    assert store.manifest == MANIFEST
    assert store.video_ids == ("b", "a", "c")
    assert len(store) == 3
    assert "a" in store
    assert "z" not in store
    for number, (video_id, count) in enumerate({"b": 3, "a": 1, "c": 5}.items()):
        np.testing.assert_array_equal(store.rows(video_id), some_rows(count, number))
        assert store.num_rows(video_id) == count
        assert store.duration_seconds(video_id) == count
        assert store.source(video_id) == f"{video_id}.mp4"
    assert store.verify() == []


def test_rows_are_a_read_only_view_of_the_file(tmp_path: Path) -> None:
    rows = make_store(tmp_path / "s", {"a": 3}).rows("a")
    assert rows.dtype == np.float16
    assert not rows.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1


def test_store_without_videos_opens(tmp_path: Path) -> None:
    assert len(make_store(tmp_path / "s", {})) == 0


def test_writer_appends_to_a_store_that_exists(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2})
    with FeatureStoreWriter(tmp_path / "s", MANIFEST) as writer:
        writer.append("b", some_rows(3, 9), 1.5)
    store = FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.rows("a"), some_rows(2, 0))
    np.testing.assert_array_equal(store.rows("b"), some_rows(3, 9))


def test_missing_video_names_store_and_nearest_id(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", {"video_17": 2})
    with pytest.raises(
        DataError, match=r"s: the store has no features of the video 'video_18'.*mean 'video_17'"
    ):
        store.rows("video_18")


@pytest.mark.parametrize("commit_every", [1, 2])
def test_kill_at_any_point_leaves_committed_videos_whole(tmp_path: Path, commit_every: int) -> None:
    """Replays every prefix of the bytes that reach the disk: rows of a commit first, then its index lines."""
    base = tmp_path / "base"
    lengths = {"a": 2, "b": 1, "c": 3}
    whole = make_store(base, lengths)
    rows, index = (base / "rows.bin").read_bytes(), (base / "index.jsonl").read_bytes()
    names = list(lengths)
    line_ends = [number + 1 for number, byte in enumerate(index) if byte == ord("\n")]
    row_ends = np.cumsum([whole.rows(name).nbytes for name in names]).tolist()
    states: list[tuple[int, int]] = []
    row_done = line_done = 0
    for first in range(0, len(names), commit_every):
        last = min(first + commit_every, len(names)) - 1
        states += [(size, line_done) for size in range(row_done, row_ends[last] + 1, 5)]
        states += [(row_ends[last], size) for size in range(line_done, line_ends[last] + 1, 5)]
        states.append((row_ends[last], line_ends[last]))
        row_done, line_done = row_ends[last], line_ends[last]
    for row_size, index_size in states:
        killed = tmp_path / "killed"
        shutil.copytree(base, killed)
        (killed / "rows.bin").write_bytes(rows[:row_size])
        (killed / "index.jsonl").write_bytes(index[:index_size])
        committed = [name for name, end in zip(names, line_ends, strict=True) if end <= index_size]
        store = FeatureStore.open(killed)
        assert list(store.video_ids) == committed
        assert store.verify() == []
        with FeatureStoreWriter(killed, MANIFEST) as writer:
            for number, name in enumerate(names):
                if name not in committed:
                    writer.append(name, some_rows(lengths[name], number), float(lengths[name]), f"{name}.mp4")
        assert (killed / "rows.bin").read_bytes() == rows
        assert (killed / "index.jsonl").read_bytes() == index
        shutil.rmtree(killed)


def test_videos_before_an_error_stay(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "s", MANIFEST, commit_every=10) as writer:
        writer.append("a", some_rows(2), 1.0)
        with pytest.raises(DataError, match="nan"):
            writer.append("b", np.full((1, 4), np.nan), 1.0)
    assert FeatureStore.open(tmp_path / "s").video_ids == ("a",)


def test_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with (
        FeatureStoreWriter(tmp_path / "s", MANIFEST),
        pytest.raises(DataError, match=r"in use by process \d+ \(writing features"),
    ):
        FeatureStoreWriter(tmp_path / "s", MANIFEST)
    FeatureStoreWriter(tmp_path / "s", MANIFEST).close()


def test_other_manifest_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2})
    what = (
        r"the store holds rows of 'test-encoder', 4 wide.*, and these are rows of 'other', 4 wide, 2 a second"
    )
    with pytest.raises(DataError, match=what):
        FeatureStoreWriter(tmp_path / "s", StoreManifest("other", 4, 2.0))


def test_a_file_is_no_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a")
    for path, said in (
        (tmp_path / "table.csv", "this is a file, not a folder"),
        (tmp_path / "table.csv" / "store", "the folder of the store cannot be made"),
    ):
        with pytest.raises(DataError, match=said):
            FeatureStoreWriter(path, MANIFEST)


@pytest.mark.parametrize(
    ("rows", "duration", "message"),
    [
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, 0.0]]), 1.0, "video 'v', row 1, column 1: a value is nan"),
        (np.array([[0, 0, 0, np.inf]]), 1.0, "video 'v', row 0, column 3: a value is inf"),
        (
            np.array([[1e6, 0, 0, 0]]),
            1.0,
            r"video 'v', row 0, column 0: the value 1e\+06 does not fit into float16",
        ),
        (np.zeros((2, 5)), 1.0, r"video 'v': the rows have the shape \(2, 5\), not \(T, 4\)"),
        (np.zeros(4), 1.0, r"video 'v': the rows have the shape \(4,\)"),
        (np.zeros((0, 4)), 1.0, "video 'v': it has no rows"),
        (np.array([["a", "b", "c", "d"]]), 1.0, "not numbers"),
        (np.zeros((2, 4)), 0.0, "video 'v': the duration 0.0 s is not a positive number"),
        (np.zeros((2, 4)), float("nan"), "the duration nan s"),
    ],
)
def test_bad_video_is_refused_and_leaves_the_store_as_it_was(
    tmp_path: Path, rows: np.ndarray, duration: float, message: str
) -> None:
    with FeatureStoreWriter(tmp_path / "s", MANIFEST) as writer:
        writer.append("good", some_rows(2), 1.0)
        with pytest.raises(DataError, match=message):
            writer.append("v", rows, duration)
        writer.append("next", some_rows(1), 1.0)
    store = FeatureStore.open(tmp_path / "s")
    assert store.video_ids == ("good", "next")
    assert store.verify() == []


def test_duplicate_and_empty_ids_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2})
    with FeatureStoreWriter(tmp_path / "s", MANIFEST) as writer:
        with pytest.raises(DataError, match="already holds the video 'a'"):
            writer.append("a", some_rows(2), 1.0)
        with pytest.raises(DataError, match="empty id"):
            writer.append("", some_rows(2), 1.0)


def test_replaced_rows_are_the_new_ones(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2, "b": 3})
    stamp = FileStamp(10, 20, "ab")
    with FeatureStoreWriter(tmp_path / "s", MANIFEST) as writer:
        writer.append("a", some_rows(5, 7), 5.0, "/a.mp4", stamp=stamp, replace=True)
        writer.append("c", some_rows(1, 8), 1.0, replace=True)
    store = FeatureStore.open(tmp_path / "s")
    assert store.video_ids == ("a", "b", "c")
    np.testing.assert_array_equal(store.rows("a"), some_rows(5, 7))
    np.testing.assert_array_equal(store.rows("b"), some_rows(3, 1))
    assert (store.entry("a").stamp, store.entry("b").stamp) == (stamp, None)
    assert store.verify() == []
    with FeatureStoreWriter(tmp_path / "same", MANIFEST) as writer:
        for video_id, rows in (("c", some_rows(1, 8)), ("b", some_rows(3, 1)), ("a", some_rows(5, 7))):
            writer.append(video_id, rows, float(len(rows)))
    assert FeatureStore.open(tmp_path / "same").fingerprint == store.fingerprint
    lines = (tmp_path / "s/index.jsonl").read_text().splitlines()
    assert ["supersedes" in line for line in lines] == [False, False, True, False]


def test_a_kill_while_replacing_keeps_the_old_rows(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2, "b": 3})
    old = len((tmp_path / "s/index.jsonl").read_bytes())
    with FeatureStoreWriter(tmp_path / "s", MANIFEST) as writer:
        writer.append("a", some_rows(5, 7), 5.0, replace=True)
    index = (tmp_path / "s/index.jsonl").read_bytes()
    for size in range(old, len(index) + 1):
        (tmp_path / "s/index.jsonl").write_bytes(index[:size])
        expected = some_rows(5, 7) if size == len(index) else some_rows(2, 0)
        np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("a"), expected)


def test_verify_names_the_video_whose_bytes_changed(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2, "b": 2})
    content = bytearray((tmp_path / "s/rows.bin").read_bytes())
    content[-1] ^= 1
    (tmp_path / "s/rows.bin").write_bytes(content)
    problems = FeatureStore.open(tmp_path / "s").verify()
    assert len(problems) == 1
    assert "'b'" in problems[0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("index.jsonl", '{"video_id": "a"}\n', "index.jsonl, line 1: the index is damaged"),
        ("index.jsonl", "half a li\n", "index.jsonl, line 1: the index is damaged"),
        ("rows.bin", "x", "shorter than its index says"),
        ("manifest.json", '{"format": "x"}', "not the manifest of a feature store"),
        ("manifest.json", '{"format": "dciml feature store", "format_version": 9}', "version 9"),
        (
            "manifest.json",
            '{"format": "dciml feature store", "format_version": 1, "dtype": "float16"}',
            "the manifest is damaged",
        ),
    ],
)
def test_damaged_store_is_refused_by_name(tmp_path: Path, file: str, content: str, message: str) -> None:
    make_store(tmp_path / "s", {"a": 2})
    (tmp_path / "s" / file).write_text(content)
    with pytest.raises(DataError, match=message):
        FeatureStore.open(tmp_path / "s")


def test_index_with_a_repeated_line_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s", {"a": 2})
    index = tmp_path / "s/index.jsonl"
    index.write_text(index.read_text() * 2)
    with pytest.raises(DataError, match="line 2: the video 'a' comes a second time"):
        FeatureStore.open(tmp_path / "s")


def test_missing_folder_and_other_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        FeatureStore.open(tmp_path / "none")
    with pytest.raises(DataError, match="not a feature store"):
        FeatureStore.open(tmp_path)


def test_fingerprint_depends_on_content_and_not_on_order(tmp_path: Path) -> None:
    one = make_store(tmp_path / "one", {"a": 2})
    same = make_store(tmp_path / "same", {"a": 2})
    more = make_store(tmp_path / "more", {"a": 2, "b": 1})
    assert one.fingerprint == same.fingerprint != more.fingerprint
    for name, order in (("xy", "xy"), ("yx", "yx")):
        with FeatureStoreWriter(tmp_path / name, MANIFEST) as writer:
            for video_id in order:
                writer.append(video_id, some_rows(2, ord(video_id)), 1.0)
    assert FeatureStore.open(tmp_path / "xy").fingerprint == FeatureStore.open(tmp_path / "yx").fingerprint


@pytest.mark.parametrize("values", [("", 4, None), ("e", 0, None), ("e", 4, 0.0), ("e", 4, float("nan"))])
def test_manifest_refuses_what_cannot_be(values: tuple[str, int, float | None]) -> None:
    with pytest.raises(ValueError, match="manifest"):
        StoreManifest(*values)


def test_rows_that_changed_are_refused_when_they_are_read(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("net", 4, 1.0)) as writer:
        for number, video_id in enumerate(("whole", "harmed")):
            writer.append(video_id, np.full((40, 4), number + 1, np.float16), 40.0)
    file = tmp_path / "s" / "rows.bin"
    content = bytearray(file.read_bytes())
    content[-1] ^= 2  # in the last row of the second video
    file.write_bytes(content)
    store = WindowedStore.open(tmp_path / "s")
    assert store.rows("whole").shape == (40, 4)
    window = windows_of(store, "harmed", WindowRule.of(10.0))[0]  # its own rows are as they were
    for name in ("harmed", window, "harmed"):
        with pytest.raises(
            DataError, match=r"rows\.bin: the rows of the video .* do not match their checksum"
        ):
            store.rows(name)
    assert store.unchecked_rows("harmed").shape == (40, 4)
    assert len(store.verify()) == 1
