"""`dciml extract` and `dciml merge-stores` as a user types them: summary, failures, exit codes, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.errors import DataError
from dciml.features.encoders.joined import encode_video
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.store import FeatureStore
from dciml.media import write_video

RUNNER = CliRunner()


def write(path: Path, seed: int, count: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    write_video(path, pictures, 8)
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number in range(2):
        write(tmp_path / f"videos/{number}.mp4", number)
    return tmp_path / "videos"


def run(*arguments: object) -> tuple[int, str, str]:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_extract_reports_what_failed_and_goes_on(videos: Path, tmp_path: Path) -> None:
    (videos / "broken.mp4").write_text("junk " * 100)
    out = tmp_path / "store"
    code, stdout, stderr = run("extract", videos, "--out", out, "--workers", 1, "--rows-per-second", 1)
    assert code == 1
    assert stdout == f"{out}: 2 videos extracted, 0 unchanged, 1 failed.\n"
    assert "failed: broken: " in stderr
    assert "To mend it: " in stderr
    failed = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert [row["video_id"] for row in failed] == ["broken"]
    assert failed[0]["path"] == str(videos / "broken.mp4")
    assert FeatureStore.open(out).manifest.rows_per_second == 1
    (videos / "broken.mp4").unlink()
    assert run("extract", videos, "--out", out, "--rows-per-second", 1)[:2] == (
        0,
        f"{out}: 0 videos extracted, 2 unchanged.\n",
    )
    assert not (out / "failures.jsonl").exists()


def test_calls_that_cannot_be_meant_are_usage_errors(videos: Path, tmp_path: Path) -> None:
    write(videos / "again/0.mp4", 5)
    out = tmp_path / "store"
    for arguments, message in (
        ((videos,), "would both have the id '0'"),
        ((tmp_path / "nowhere",), "no such file or folder"),
        ((videos / "0.mp4", "--encoder", "bultin"), "unknown video encoder 'bultin'"),
        (
            (videos / "0.mp4", "--encoder", "builtin", "--encoder", "builtin"),
            "each encoder can be named once",
        ),
        ((videos / "0.mp4", "--shard", "3/2"), "a shard is i/n"),
        ((videos / "0.mp4", "--ids", "name"), "'name' is not one of"),
    ):
        code, _, stderr = run("extract", *arguments, "--out", out)
        assert code == 2, stderr
        assert message in " ".join(stderr.split()), stderr
    assert not out.exists()


def test_a_store_of_another_rate_is_not_written_to(videos: Path, tmp_path: Path) -> None:
    arguments = ["extract", str(videos / "0.mp4"), "--out", str(tmp_path / "s"), "--workers", "1"]
    assert RUNNER.invoke(app, arguments).exit_code == 0
    with pytest.raises(DataError, match="write these features to another store"):
        RUNNER.invoke(app, [*arguments, "--rows-per-second", "1"], catch_exceptions=False)
    assert len(FeatureStore.open(tmp_path / "s")) == 1


def test_a_store_is_added_to_with_its_own_encoder_and_rate(videos: Path, tmp_path: Path) -> None:
    out, more = tmp_path / "s", ("--encoder", "text:words:8", "--rows-per-second", 1)
    for number in range(2):
        (videos / f"{number}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\na dog runs\n")
    assert run("extract", videos / "0.mp4", "--out", out, "--workers", 1, *more)[0] == 0
    assert FeatureStore.open(out).manifest.encoder_specs == ("text:words:8",)
    assert run("extract", videos, "--out", out, "--workers", 1)[:2] == (
        0,
        f"{out}: 1 video extracted, 1 unchanged.\n",
    )
    assert FeatureStore.open(out).manifest.rows_per_second == 1


@pytest.mark.slow
def test_shards_merge_to_the_store_of_one_machine(videos: Path, tmp_path: Path) -> None:
    for number in range(2, 6):
        write(videos / f"deep/{number}.mp4", number)
    out = tmp_path / "store"
    for shard in ("1/2", "2/2"):
        assert run("extract", videos, "--out", out, "--shard", shard, "--ids", "path")[0] == 0
    parts = sorted((tmp_path / "store.shards").iterdir())
    assert [part.name for part in parts] == ["1-of-2", "2-of-2"]
    assert run("merge-stores", *parts, "--out", out) == (0, f"{out}: 6 videos of 2 stores.\n", "")
    assert run("extract", videos, "--out", tmp_path / "whole", "--ids", "path")[0] == 0
    merged, whole = FeatureStore.open(out), FeatureStore.open(tmp_path / "whole")
    assert "videos/deep/2.mp4" in merged
    assert merged.fingerprint == whole.fingerprint
    # The merged store goes on like any other.
    assert "0 videos extracted, 6 unchanged" in run("extract", videos, "--out", out, "--ids", "path")[1]


@pytest.mark.slow
def test_encoders_stand_side_by_side(videos: Path, tmp_path: Path) -> None:
    (videos / "0.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\na dog runs\n")
    code, stdout, _ = run(
        "extract", videos, "--out", tmp_path / "s", "--encoder", "builtin", "--encoder", "text:words:16"
    )
    assert code == 0, stdout
    store = FeatureStore.open(tmp_path / "s")
    assert store.manifest.encoder.startswith("builtin-visual-1 + text:")
    expected = encode_video(videos / "0.mp4", BuiltinVisualEncoder()).rows.astype(np.float16)
    np.testing.assert_array_equal(store.rows("0")[:, :581], expected)
    assert store.rows("0")[0, 581:].any()
    assert not store.rows("1")[:, 581:].any()


@pytest.mark.slow
def test_a_kill_loses_at_most_the_videos_in_hand(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"videos/{number:02}.mp4", number, 400)
    out = tmp_path / "store"
    command = [sys.executable, "-m", "dciml", "extract", str(tmp_path / "videos"), "--out", str(out)]
    expected = {
        path.stem: encode_video(path, BuiltinVisualEncoder()).rows.astype(np.float16)
        for path in sorted((tmp_path / "videos").iterdir())
    }
    for stored in (1, 4, 7):
        with subprocess.Popen([*command, "--workers", "1"], start_new_session=True) as process:
            index = out / "index.jsonl"
            deadline = time.monotonic() + 60
            while not (index.exists() and index.read_bytes().count(b"\n") >= stored):
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
        store = FeatureStore.open(out)
        assert len(store) >= stored
        assert store.verify() == []
        for video_id in store.video_ids:
            np.testing.assert_array_equal(store.rows(video_id), expected[video_id])
    before = len(FeatureStore.open(out))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{out}: {12 - before} videos extracted, {before} unchanged.\n"
    store = FeatureStore.open(out)
    assert store.verify() == []
    assert sorted(store.video_ids) == sorted(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_gives_the_same_store(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (videos / "broken.mp4").write_text("junk " * 100)
    command = [sys.executable, "-m", "dciml", "extract", str(videos), "--workers", "2"]
    codes = [
        subprocess.run(
            [*command, "--out", str(tmp_path / out), *more], capture_output=True, check=False
        ).returncode
        for out, more in (("ray", ["--ray"]), ("plain", []))
    ]
    assert codes == [1, 1]
    by_ray, plain = FeatureStore.open(tmp_path / "ray"), FeatureStore.open(tmp_path / "plain")
    assert by_ray.fingerprint == plain.fingerprint
    assert (tmp_path / "ray/failures.jsonl").read_text() == (tmp_path / "plain/failures.jsonl").read_text()
    again = subprocess.run(
        [*command, "--out", str(tmp_path / "ray")], capture_output=True, text=True, check=False
    )
    assert "0 videos extracted, 2 unchanged, 1 failed" in again.stdout
