"""Extraction of several files into a store: what is missing or changed, and nothing else."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features import extract
from dciml.features.encoders.joined import encode_video
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.extract import Extraction, ExtractionProgress, VideoFile, extract_video, extract_videos
from dciml.features.store import FeatureStore
from dciml.media import write_video
from dciml.processes import Outcome

ENCODER = BuiltinVisualEncoder()


def write(path: Path, seed: int) -> Path:
    pictures = np.random.default_rng(seed).integers(0, 256, (10 + 3 * seed, 48, 64, 3), dtype=np.uint8)
    write_video(path, pictures, 8)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {f"v{k}": write(tmp_path / f"{k}.mp4", k) for k in range(3)}


def here(log: list[str], encoder: Any = ENCODER) -> extract.Runner:
    """Runs in this process and notes the ids that were worked on."""

    def run(files: Any, on_beat: Any) -> Any:
        for file in files:
            log.append(file.video_id)
            try:
                done = extract_video(file, lambda *beat, file=file: on_beat(file, *beat), encoder)
                yield Outcome(file, done, None)
            except DataError as error:
                yield Outcome(file, None, error)

    return run


def test_extraction_gives_the_same_store_in_any_number_of_processes(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    seen: list[ExtractionProgress] = []
    extract_videos(paths, ENCODER, tmp_path / "one", run=here([]))
    done = extract_videos(
        paths, ENCODER, tmp_path / "two", 2, lambda p: seen.append(ExtractionProgress(**vars(p)))
    )
    one, two = FeatureStore.open(tmp_path / "one"), FeatureStore.open(tmp_path / "two")
    assert (sorted(done.done), done.unchanged, done.failures) == (["v0", "v1", "v2"], (), ())
    assert one.fingerprint == two.fingerprint
    assert one.manifest.encoder == "builtin-visual-1"
    for video_id, path in paths.items():
        expected = encode_video(path, ENCODER).rows.astype(np.float16)
        np.testing.assert_array_equal(two.rows(video_id), expected)
        assert two.source(video_id) == str(path.absolute())
    assert (seen[-1].num_videos, seen[-1].num_done, seen[-1].bytes_done) == (3, 3, seen[0].num_bytes)
    assert all(before.bytes_done <= after.bytes_done for before, after in pairwise(seen))


def test_only_what_is_missing_or_changed_is_done(paths: dict[str, Path], tmp_path: Path) -> None:
    log: list[str] = []
    store_path, run = tmp_path / "store", here(log)
    extract_videos({"v0": paths["v0"]}, ENCODER, store_path, run=run)
    assert extract_videos(paths, ENCODER, store_path, run=run).unchanged == ("v0",)
    assert log == ["v0", "v1", "v2"]
    os.utime(paths["v0"])  # other time, same content: looked at, not extracted
    write(paths["v1"], 7)
    before = (store_path / "index.jsonl").read_bytes()
    again = extract_videos(paths, ENCODER, store_path, run=run)
    assert again == Extraction(("v1",), ("v2", "v0"), ())
    assert log[3:] == ["v0", "v1"]
    store = FeatureStore.open(store_path)
    assert store.num_rows("v1") == len(encode_video(paths["v1"], ENCODER).rows)
    assert store.verify() == []
    assert (store_path / "index.jsonl").read_bytes().startswith(before)


def test_rows_that_nobody_stamped_are_made_again(paths: dict[str, Path], tmp_path: Path) -> None:
    from dciml.features.store import FeatureStoreWriter, StoreManifest

    with FeatureStoreWriter(tmp_path / "store", StoreManifest(ENCODER.name, 581, 2.0)) as writer:
        writer.append("v0", np.zeros((3, 581)), 1.5, "0.mp4")
    assert extract_videos(paths, ENCODER, tmp_path / "store", run=here([])).done == ("v0", "v1", "v2")
    assert FeatureStore.open(tmp_path / "store").rows("v0").any()


def test_broken_files_are_reported_and_the_others_go_on(paths: dict[str, Path], tmp_path: Path) -> None:
    paths["v1"].write_bytes(b"junk")
    failures: list[extract.Failure] = []
    all_paths = {"gone": tmp_path / "gone.mp4", **paths}
    done = extract_videos(all_paths, ENCODER, tmp_path / "store", on_failure=failures.append, run=here([]))
    assert done.done == ("v0", "v2")
    assert list(done.failures) == failures
    assert [failure.video_id for failure in failures] == ["gone", "v1"]
    assert "gone.mp4: there is no such file" in str(failures[0].error)
    with pytest.raises(DataError, match=r"gone\.mp4: there is no such file"):
        done.check()
    write(paths["v1"], 1)
    assert extract_videos(paths, ENCODER, tmp_path / "store", run=here([])).done == ("v1",)


def test_a_changed_file_that_broke_keeps_its_rows(paths: dict[str, Path], tmp_path: Path) -> None:
    extract_videos(paths, ENCODER, tmp_path / "store", run=here([]))
    rows = FeatureStore.open(tmp_path / "store").rows("v1").copy()
    paths["v1"].write_bytes(b"junk")
    assert len(extract_videos(paths, ENCODER, tmp_path / "store", run=here([])).failures) == 1
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "store").rows("v1"), rows)


class GrowingEncoder(BuiltinVisualEncoder):
    """The file grows while it is encoded."""

    def begin(self, info: Any) -> Any:
        with info.path.open("ab") as file:
            file.write(b"more")
        return super().begin(info)


def test_a_file_that_changes_meanwhile_is_not_stored(paths: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"0\.mp4: the file changed while it was read"):
        extract_video(VideoFile("v0", paths["v0"], 0), lambda *_: None, GrowingEncoder())


class SubtitleEncoder(BuiltinVisualEncoder):
    """Also reads a file beside the video."""

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        return tuple(path.parent.glob(f"{path.stem}.srt"))

    def trouble_beside(self, path: Path) -> DataError | None:
        return None


def test_files_beside_the_video_count_too(paths: dict[str, Path], tmp_path: Path) -> None:
    log: list[str] = []
    run = here(log, SubtitleEncoder())
    for text in (None, None, "one", "one", "two"):
        if text is not None:
            (tmp_path / "1.srt").write_text(text)
        extract_videos(paths, SubtitleEncoder(), tmp_path / "store", run=run)
    assert log == ["v0", "v1", "v2", "v1", "v1", "v1"]
    assert FeatureStore.open(tmp_path / "store").entry("v1").stamp is not None


def test_a_full_disk_ends_the_extraction_in_plain_words(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*details: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract.FeatureStoreWriter, "append", full)
    with pytest.raises(DataError, match=r"store cannot be written \(No space left on device\)"):
        extract_videos(paths, ENCODER, tmp_path / "store", run=here([]))


HOSTILE = """
import os, signal, time
from dciml.features.encoders.visual import BuiltinVisualEncoder

class HostileEncoder(BuiltinVisualEncoder):
    def begin(self, info):
        if info.path.stem == "0":
            os.kill(os.getpid(), signal.SIGSEGV)
        if info.path.stem == "1":
            time.sleep(60)
        return super().begin(info)
"""


@pytest.mark.slow
def test_crashes_and_hangs_cost_one_video_each(
    paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_encoder.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hostile_encoder", raising=False)
    monkeypatch.setattr(extract, "STALL_SECONDS", 8.0)
    encoder = import_module("hostile_encoder").HostileEncoder()
    done = extract_videos(paths, encoder, tmp_path / "store", 1)
    assert done.done == ("v2",)
    crash, hang = (str(failure.error) for failure in done.failures)
    assert "0.mp4: the process that worked on it crashed (Segmentation fault)" in crash
    assert "1.mp4: no progress for 8 s" in hang
    assert FeatureStore.open(tmp_path / "store").verify() == []
