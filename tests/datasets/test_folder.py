"""The data folder: whole or not at all, and its parts fit together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dciml.datasets.folder import DataFolder, write_data_folder
from dciml.errors import DataError
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.types import Query, TrainingPair, Video

VIDEOS = (
    Video("a", 10.0, "train"),
    Video("b", 8.0, "train"),
    Video("c", 5.0, "test"),
    Video("d", 6.0, "test"),
)
QUERIES = {
    "train": (Query("q1", "a", "a dog runs", ((1.0, 10.0),)), Query("q2", "b", "a cat sits")),
    "test": (Query("q3", "c", "a bird flies", ((0.0, 2.0),)),),
}


def build(path: Path, durations: dict[str, float] | None = None, num_rows: int = 3) -> None:
    with FeatureStoreWriter(path, StoreManifest("e", 2)) as writer:
        for video_id, seconds in (
            durations or {video.video_id: video.duration_seconds for video in VIDEOS}
        ).items():
            writer.append(video_id, np.ones((num_rows, 2)), seconds)


def make(path: Path) -> DataFolder:
    return write_data_folder(path, "toy", QUERIES, VIDEOS, build, notes={"from": "here"})


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    make(tmp_path / "d")
    folder = DataFolder.open(tmp_path / "d")
    assert (folder.name, folder.splits, folder.notes) == ("toy", ("train", "test"), {"from": "here"})
    assert folder.videos("test") == VIDEOS[2:]
    for split, queries in QUERIES.items():
        assert folder.queries(split) == queries
        assert folder.pairs(split) == tuple(query.pair() for query in queries)
    assert folder.videos_without_queries("test") == ("d",)
    assert folder.features_without_video == ()
    assert json.loads((tmp_path / "d/data.json").read_text())["splits"]["test"] == {"videos": 2, "queries": 1}


def test_pairs_are_read_without_moments(tmp_path: Path) -> None:
    make(tmp_path / "d")
    edit(tmp_path / "d/train.jsonl", "[[1.0, 10.0]]", '"secret"')
    folder = DataFolder.open(tmp_path / "d")
    assert folder.pairs("train")[0] == TrainingPair("q1", "a", "a dog runs")
    with pytest.raises(DataError, match="line 1, field moments"):
        folder.queries("train")


def test_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    folder = make(tmp_path / "d")
    for read in (folder.videos, folder.queries, folder.pairs, folder.videos_without_queries):
        with pytest.raises(DataError, match=r"no split 'val'.*train, test"):
            read("val")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "videos.jsonl",
            '"a"',
            '"aa"',
            r"videos\.jsonl, line 1, field video_id: the video 'aa' has no features",
        ),
        (
            "videos.jsonl",
            '"train"',
            '"tarin"',
            r"videos\.jsonl, line 1, field split: the split 'tarin' is unknown",
        ),
        (
            "videos.jsonl",
            "10.0",
            "11.0",
            r"line 1, field duration_seconds: the video lasts 11.0 s here and 10.0 s",
        ),
        (
            "videos.jsonl",
            '"b", "duration_seconds": 8.0',
            '"a", "duration_seconds": 10.0',
            "line 2.*comes twice",
        ),
        ("videos.jsonl", "10.0", "-1", "line 1, field duration_seconds: -1.0 is not a positive number"),
        ("data.json", "dciml data folder", "other", "does not describe a data folder"),
        ("data.json", '"format_version": 1', '"format_version": 2', "format version is 2, not 1"),
        ("data.json", '"splits"', '"parts"', "name or splits are missing"),
    ],
)
def test_parts_that_do_not_fit_are_refused_on_open(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    make(tmp_path / "d")
    edit(tmp_path / "d" / file, old, new)
    with pytest.raises(DataError, match=message):
        DataFolder.open(tmp_path / "d")


def test_query_for_a_video_outside_the_corpus_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "d")
    edit(tmp_path / "d/test.jsonl", '"c"', '"a"')
    folder = DataFolder.open(tmp_path / "d")
    for read in (folder.queries, folder.pairs):
        with pytest.raises(
            DataError, match=r"test\.jsonl, line 1, field video_id: .*'q3' asks for the video 'a'"
        ):
            read("test")


def test_empty_corpus_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "d")
    lines = (tmp_path / "d/videos.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "d/videos.jsonl").write_text("".join(line for line in lines if "train" in line))
    folder = DataFolder.open(tmp_path / "d")
    with pytest.raises(DataError, match="the corpus of the split 'test' is empty"):
        folder.videos("test")
    assert folder.features_without_video == ("c", "d")


def test_corpus_of_one_video_with_one_row_is_fine(tmp_path: Path) -> None:
    queries = {"test": QUERIES["test"]}
    folder = write_data_folder(
        tmp_path / "d", "one", queries, VIDEOS[2:3], lambda path: build(path, {"c": 5.0}, num_rows=1)
    )
    assert folder.videos("test") == VIDEOS[2:3]
    assert folder.store.rows("c").shape == (1, 2)


def test_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        build(path, {"a": 10.0})

    with pytest.raises(DataError, match="has no features"):
        write_data_folder(tmp_path / "d", "toy", QUERIES, VIDEOS, fail)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "d")
    with pytest.raises(DataError, match="something here already"):
        make(tmp_path / "d")


@pytest.mark.parametrize("split", ["videos", "../x", "a b", ""])
def test_split_name_that_cannot_be_a_file_is_refused(tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"cannot be named {split!r}")):
        write_data_folder(tmp_path / "d", "toy", {split: ()}, (), build)


def test_missing_folder_and_other_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        DataFolder.open(tmp_path / "none")
    with pytest.raises(DataError, match="not a data folder"):
        DataFolder.open(tmp_path)
