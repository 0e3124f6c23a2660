"""Imports end to end, through the commands as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.data import app
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.recipes.prepare import ImportOptions, prepare_benchmark, prepare_records

TRAIN = [{"query_id": "q1", "video_id": "a", "sentence": "a dog runs", "duration": 10, "moments": [[0, 5]]}]
TEST = [
    {"query_id": "q2", "video_id": "b", "sentence": "a cat sits", "duration": 8, "moments": [[1, 9]]},
    {"query_id": "q3", "video_id": "b", "sentence": "it sleeps", "duration": 8, "moments": [[2, 3]]},
]


def write_h5(path: Path, **videos: tuple[float | None, str | None]) -> Path:
    with h5py.File(path, "w") as file:
        for video_id, (duration, split) in videos.items():
            dataset = file.create_dataset(video_id, data=np.full((4, 3), len(video_id), np.float16))
            if duration is not None:
                dataset.attrs["duration"] = duration
            if split is not None:
                dataset.attrs["split"] = split
    return path


def write_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_h5(folder / "videos.h5", a=(10, "train"), b=(8, "test"), c=(7, "test"))
    write_lines(folder / "train.jsonl", TRAIN)
    write_lines(folder / "test.jsonl", TEST)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_benchmark_becomes_a_data_folder(corpus: Path, tmp_path: Path) -> None:
    output = run("benchmark", corpus, "--out", tmp_path / "d", "--encoder", "net", "--rows-per-second", 0.5)
    folder = DataFolder.open(tmp_path / "d")
    assert (folder.name, folder.splits) == ("corpus", ("train", "test"))
    assert [video.video_id for video in folder.videos("test")] == ["b", "c"]
    assert [query.moments for query in folder.queries("test")] == [((1, 8),), ((2, 3),)]
    assert (folder.store.manifest.encoder, folder.store.manifest.rows_per_second) == ("net", 0.5)
    counts = [line.split("│")[1:-1] for line in output.splitlines() if line.startswith("│")]
    assert {row[0].strip(): [int(cell) for cell in row[1:]] for row in counts} == {
        "videos": [1, 2],
        "queries": [1, 2],
        "clipped moments": [0, 1],
        "dropped moments": [0, 0],
        "videos without queries": [0, 1],
        "queries without features": [0, 0],
        "queries without moments": [0, 0],
    }


def test_benchmark_refuses_past_end_on_request(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"test\.jsonl, line 1, field moments: the moment ends at 9.0 s, after"
    ):
        run("benchmark", corpus, "--out", tmp_path / "d", "--past-end", "refuse")


def test_video_without_split_is_refused(corpus: Path, tmp_path: Path) -> None:
    write_h5(corpus / "videos.h5", a=(10, "train"), b=(8, "test"), c=(7, None))
    with pytest.raises(DataError, match=r"videos\.h5, field c: the video belongs to no split"):
        prepare_benchmark(corpus, tmp_path / "d", "x", ImportOptions())


def test_query_of_a_video_in_another_split_is_refused(corpus: Path, tmp_path: Path) -> None:
    write_lines(corpus / "test.jsonl", [*TEST, TRAIN[0] | {"query_id": "q4"}])
    with pytest.raises(
        DataError, match=r"test\.jsonl, line 3, field video_id: .*'a', which is in the split 'train'"
    ):
        prepare_benchmark(corpus, tmp_path / "d", "x", ImportOptions())


def test_video_without_features_is_refused_or_dropped_and_counted(corpus: Path, tmp_path: Path) -> None:
    write_lines(corpus / "test.jsonl", [*TEST, TEST[0] | {"query_id": "q4", "video_id": "zz"}])
    with pytest.raises(
        DataError, match=r"test\.jsonl, line 3, field video_id: the video 'zz' has no features"
    ):
        prepare_benchmark(corpus, tmp_path / "d", "x", ImportOptions())
    summary = prepare_benchmark(corpus, tmp_path / "d", "x", ImportOptions(allow_missing=True))
    assert summary.splits["test"].queries_without_features == 1
    assert len(summary.folder.queries("test")) == 2


def test_features_without_a_video_are_refused_or_left_out(corpus: Path, tmp_path: Path) -> None:
    arguments = (
        "records",
        "--split",
        f"train={corpus / 'train.jsonl'}",
        "--split",
        f"test={corpus / 'test.jsonl'}",
    )
    arguments += ("--features", corpus / "videos.h5", "--out", tmp_path / "d")
    with pytest.raises(DataError, match=r"videos\.h5, field c: features of 1 video\(s\) belong to no split"):
        run(*arguments)
    assert "1 video(s) of the features" in run(*arguments, "--allow-extra")
    assert DataFolder.open(tmp_path / "d").store.video_ids == ("a", "b")


def test_records_come_from_a_store_too(corpus: Path, tmp_path: Path) -> None:
    run("benchmark", corpus, "--out", tmp_path / "d", "--encoder", "net")
    files = {"test": corpus / "test.jsonl"}
    options = ImportOptions(allow_extra=True)
    summary = prepare_records(files, tmp_path / "d/features", tmp_path / "again", "again", options)
    assert summary.folder.store.manifest.encoder == "net"
    np.testing.assert_array_equal(
        summary.folder.store.rows("b"), DataFolder.open(tmp_path / "d").store.rows("b")
    )


def test_impossible_moments_are_refused_for_own_records_and_dropped_for_published_ones(
    corpus: Path, tmp_path: Path
) -> None:
    write_lines(corpus / "train.jsonl", [TRAIN[0] | {"moments": [[5, 4]]}])
    options = ("--features", corpus / "videos.h5", "--out", tmp_path / "d", "--allow-extra")
    with pytest.raises(DataError, match="line 1, field moments: the moment ends before its start"):
        run("records", "--split", f"train={corpus / 'train.jsonl'}", *options)
    run("benchmark", corpus, "--out", tmp_path / "d")
    assert DataFolder.open(tmp_path / "d").queries("train")[0].moments == ()


def test_unknown_duration_and_empty_corpus_are_refused(tmp_path: Path) -> None:
    rows = [{"query_id": "q", "video_id": "a", "sentence": "a dog"}]
    files = {"train": write_lines(tmp_path / "t.jsonl", rows)}
    features = write_h5(tmp_path / "x.h5", a=(None, None))
    with pytest.raises(DataError, match=r"x\.h5, field a: the duration of the video is not known"):
        prepare_records(files, features, tmp_path / "d", "x", ImportOptions())
    features = write_h5(tmp_path / "x.h5", b=(3.0, None))
    with pytest.raises(DataError, match="corpus is empty"):
        prepare_records(files, features, tmp_path / "d", "x", ImportOptions(allow_missing=True))
    assert not (tmp_path / "d").exists()


def test_durations_of_records_serve_where_the_features_have_none(tmp_path: Path) -> None:
    files = {"train": write_lines(tmp_path / "t.jsonl", TRAIN)}
    features = write_h5(tmp_path / "x.h5", a=(None, None))
    folder = prepare_records(files, features, tmp_path / "d", "x", ImportOptions()).folder
    assert folder.store.duration_seconds("a") == folder.videos("train")[0].duration_seconds == 10.0


def test_slightly_different_durations_agree_and_others_are_refused(tmp_path: Path) -> None:
    files = {"train": write_lines(tmp_path / "t.jsonl", [TRAIN[0] | {"moments": [[0, 10]]}])}
    near = write_h5(tmp_path / "near.h5", a=(9.8, None))
    summary = prepare_records(files, near, tmp_path / "d", "x", ImportOptions())
    assert summary.folder.queries("train")[0].moments == ((0, 9.8),)
    far = write_h5(tmp_path / "far.h5", a=(30.0, None))
    with pytest.raises(
        DataError, match=r"line 1, field duration: the video 'a' lasts 10.0 s here and 30.0 s"
    ):
        prepare_records(files, far, tmp_path / "e", "x", ImportOptions())


@pytest.mark.parametrize(("option", "message"), [("train", "not NAME=FILE"), ("=x", "not NAME=FILE")])
def test_split_option_of_another_form_is_refused(tmp_path: Path, option: str, message: str) -> None:
    arguments = ["records", "--split", option, "--features", "x.h5", "--out", str(tmp_path / "d")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_import_command_loads_nothing_heavy() -> None:
    code = "import sys, dciml.cli.data; print(*[m for m in ('torch', 'h5py', 'numpy') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == ""
    )
