"""Imports look at rows, rate and length together, at the way round that features lie, and at their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.features.row_checks import find_mismatch
from dciml.features.sources.source import open_features, write_store
from dciml.recipes.prepare import ImportOptions, ImportSummary, prepare_records

WIDTH = 16
RATE = 0.5


def files(
    folder: Path, videos: Mapping[str, tuple[Any, float | None]], moment: tuple[float, float] = (0.5, 1.0)
) -> tuple[Path, Path]:
    """An HDF5 file of these rows, and a sentence for each video that tells its length."""
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "x.h5", "w") as file:
        for video_id, (rows, _) in videos.items():
            file[video_id] = rows
    lines = []
    for number, (video_id, (_, seconds)) in enumerate(videos.items()):
        line = {"query_id": f"q{number}", "video_id": video_id, "sentence": "a dog runs", "moments": [moment]}
        lines.append(json.dumps(line | ({} if seconds is None else {"duration": seconds})))
    (folder / "q.jsonl").write_text("\n".join(lines))
    return folder / "q.jsonl", folder / "x.h5"


def imported(tmp_path: Path, videos: Mapping[str, tuple[Any, float | None]], **options: Any) -> ImportSummary:
    queries, features = files(tmp_path / "in", videos)
    return prepare_records({"train": queries}, features, tmp_path / "d", "x", ImportOptions(**options))


def rows(count: int, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, width)).astype(np.float32)


GOOD = {"a": (rows(75), 150.0), "b": (rows(63), 126.0), "c": (rows(10), 20.0)}


@pytest.mark.parametrize("seconds", [148.0, 150.0, 151.9])
def test_lengths_that_agree_to_a_row_or_a_hundredth_are_taken(tmp_path: Path, seconds: float) -> None:
    summary = imported(tmp_path, {**GOOD, "a": (rows(75), seconds)}, rows_per_second=RATE)
    assert summary.warnings == ()
    assert summary.folder.store.manifest.rows_per_second == RATE
    assert summary.folder.store.row_times("a").seconds_per_row == 2.0


def test_a_rate_that_does_not_fit_some_videos_is_refused(tmp_path: Path) -> None:
    videos = {**GOOD, "b": (rows(75), 126.0), "c": (rows(12), 20.0)}
    with pytest.raises(DataError) as error:
        imported(tmp_path, videos, rows_per_second=RATE)
    message = str(error.value)
    assert "x.h5, field c: rows, rows per second and length do not agree in 2 of 3 videos" in message
    assert (
        "furthest apart is 'c': 12 rows at 0.5 a second are 24 s, but it lasts 20 s (4 s or 20 % more)"
        in message
    )
    assert "--rate-mismatch" in message
    assert not (tmp_path / "d").exists()


def test_a_length_of_the_annotations_may_be_rounded_where_the_features_state_their_own(
    tmp_path: Path,
) -> None:
    """203 rows at 2 a second are 101.5 s, and the file says so; published annotations say 100 s, and those count."""
    _, features = files(tmp_path / "in", {"a": (rows(203), None)})
    assert find_mismatch(open_features(features, "x", rows_per_second=2.0), {"a": 100.0}) is not None
    with h5py.File(features, "r+") as file:
        file["a"].attrs["duration"] = 101.5
    source = open_features(features, "x", rows_per_second=2.0)
    assert find_mismatch(source, {"a": 100.0}) is None
    store = write_store(source, tmp_path / "store", ["a"], {"a": 100.0})
    assert (store.num_rows("a"), store.duration_seconds("a")) == (200, 100.0)


def test_the_rate_that_would_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 3 videos.*all rows would fit --rows-per-second 0\.5"):
        imported(tmp_path, {**GOOD, "c": (rows(1), 2.0)}, rows_per_second=1.0)


def test_one_may_go_on_by_the_rate(tmp_path: Path) -> None:
    """Row 62 of `b` is at 124 s, the last before its end; `c` has features of a half only."""
    videos = {**GOOD, "b": (rows(75), 126.0), "c": (rows(10), 40.0)}
    summary = imported(tmp_path, videos, rows_per_second=RATE, rate_mismatch="rate")
    assert "2 of 3 videos" in summary.warnings[0]
    assert "as you asked, row i is at i / rate" in summary.warnings[0]
    store = summary.folder.store
    assert (store.num_rows("b"), store.num_rows("c")) == (63, 10)
    assert store.row_times("b").seconds([62 / 63, 1.0]).tolist() == [124.0, 126.0]
    assert store.row_times("c").seconds([0.5, 1.0]).tolist() == [10.0, 20.0]


def test_one_may_go_on_without_the_rate(tmp_path: Path) -> None:
    videos = {**GOOD, "c": (rows(10), 40.0)}
    summary = imported(tmp_path, videos, rows_per_second=RATE, rate_mismatch="spread")
    assert "as you asked, rows are spread evenly" in summary.warnings[0]
    store = summary.folder.store
    assert store.manifest.rows_per_second is None
    assert store.row_times("c").seconds([0.5, 1.0]).tolist() == [20.0, 40.0]


def test_the_command_takes_the_option(tmp_path: Path) -> None:
    queries, features = files(tmp_path / "in", {"a": (rows(20), 20.0), "b": (rows(20), 20.0)})
    call = ["import", "records", "--split", f"train={queries}", "--features", str(features), "--out"]
    call += [str(tmp_path / "d"), "--rows-per-second", "0.5"]
    with pytest.raises(DataError, match="do not agree in 2 of 2 videos"):
        CliRunner().invoke(app, call, catch_exceptions=False)
    CliRunner().invoke(app, [*call, "--rate-mismatch", "spread"], catch_exceptions=False)
    assert DataFolder.open(tmp_path / "d").store.manifest.rows_per_second is None


@pytest.mark.parametrize("rate", [None, RATE])
def test_a_transposed_video_is_told_by_the_others(tmp_path: Path, rate: float | None) -> None:
    for turned in ("a", "c"):
        videos = {**GOOD, turned: (GOOD[turned][0].T, GOOD[turned][1])}
        with pytest.raises(DataError, match=rf"field {turned}: .*it lies \[width, time\].*array\.T"):
            imported(tmp_path, videos, rows_per_second=rate)


@pytest.mark.parametrize("known", [True, False])
def test_all_videos_transposed_are_told_by_their_common_number(tmp_path: Path, known: bool) -> None:
    """Also where the lengths are taken from the rows, and a moment would lie in no video."""
    videos = {v: (held.T, seconds if known else None) for v, (held, seconds) in GOOD.items()}
    with pytest.raises(DataError, match=r"field a: .*it lies \[width, time\] \(3 of 3 videos do\)"):
        imported(tmp_path, videos, rows_per_second=RATE)


def test_one_transposed_video_is_told_by_its_length(tmp_path: Path) -> None:
    """And nothing can be told of it without a rate: it may have 16 rows of 75 numbers."""
    one = {"a": (GOOD["a"][0].T, 150.0)}
    with pytest.raises(DataError, match=r"16 rows at 0\.5 a second are 32 s.*probably lie \[width, time\]"):
        imported(tmp_path, one, rows_per_second=RATE)
    assert imported(tmp_path, one).folder.store.rows("a").shape == (16, 75)


def test_rows_of_two_widths_that_are_not_transposed_are_refused_as_before(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"field b: .*not \(T, 16\)"):
        imported(tmp_path, {**GOOD, "b": (rows(63, 17), 126.0)})


def test_numbers_that_spoil_answers_are_told(tmp_path: Path) -> None:
    some = rows(75)
    some[3], some[5] = 0, 1e-9
    videos = {**GOOD, "a": (some, 150.0), "b": (np.ones((63, WIDTH)), 126.0)}
    lost, zero, alike = imported(tmp_path, videos).warnings
    assert "video 'a', row 5" in lost
    assert "video 'a', row 3" in zero
    assert "'b'" in alike


def test_features_that_are_too_small_for_the_store_are_refused_at_their_file(tmp_path: Path) -> None:
    videos = {video_id: (held * np.float32(1e-9), seconds) for video_id, (held, seconds) in GOOD.items()}
    with pytest.raises(
        DataError, match=r"x\.h5, field a: video 'a', row 0: .*too small for float16.*multiply"
    ):
        imported(tmp_path, videos)
