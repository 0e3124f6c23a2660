"""`dciml train` as a user types it: in this process, and as a process that is asked to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig, dump_config, load_config
from dciml.errors import ConfigError, DataError, ModelError
from dciml.folders import CHECKPOINT_FILE, WEIGHTS_FILE
from dciml.training.checkpoint import load_tensors
from dciml.training.progress import Stopped

RUNNER = CliRunner()
DCIML = Path(sys.executable).parent / "dciml"


@pytest.fixture
def config(tiny_config: Callable[..., RunConfig], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(tiny_config()))
    return path


def test_command_trains_and_says_where_the_model_is(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = RUNNER.invoke(
        app, ["train", str(config), "--out", str(out), "--set", "training.epochs=1", "--set", "seed=3"]
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"model: {out}"
    assert "epoch 1: " in result.stderr
    assert "sentences/s; held out: SumR" in result.stderr.replace("\n", " ")
    assert "triplet_clip" in result.stderr
    written = load_config(out / "config.yaml")
    assert (written.training.epochs, written.seed) == (1, 3)
    facts = json.loads((out / "run.json").read_text())
    assert {"torch", "numpy", "dciml", "lightning-fabric"} <= facts["packages"].keys()
    assert facts["git_revision"] is None or len(facts["git_revision"]) >= 40
    events = b"".join(path.read_bytes() for path in (out / "tensorboard").glob("events.*"))
    assert b"loss/triplet_clip" in events
    assert b"held_out/grounding" in events


def test_quiet_command_shows_no_bar(config: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        str(config),
        "--out",
        str(tmp_path / "out"),
        "--quiet",
        "--set",
        "training.epochs=1",
    ]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()  # no bar, but what protects the result
    assert warning.startswith("dciml: warning: 2 video(s) are held out, too few to choose an epoch by")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["warnings"] == [
        warning.removeprefix("dciml: warning: ")
    ]


def test_default_folder_is_named_by_the_settings(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["train", str(config), "--quiet", "--set", "training.epochs=1"])
    assert result.exit_code == 0
    assert (tmp_path / "runs" / "tiny" / WEIGHTS_FILE).exists()


def test_shipped_settings_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped, own = "configs/your_videos.yaml", tmp_path / "configs" / "your_videos.yaml"

    def run(name: str) -> None:
        RUNNER.invoke(app, ["train", name], catch_exceptions=False)

    with pytest.raises(DataError, match=r"data/mine: there is no such folder"):
        run(shipped)
    with pytest.raises(DataError, match=r"configs/your_video\.yaml: there is no such file"):
        run("configs/your_video.yaml")
    own.parent.mkdir()
    own.write_text("name: own\ndata: {folder: elsewhere}\n")
    with pytest.raises(DataError, match=r"elsewhere: there is no such folder"):
        run(shipped)


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (["--set", "training.epoch=1"], ConfigError, r"did you mean training\.epochs\?"),
        (["--set", "training.epochs=many"], ConfigError, r"training\.epochs: "),
        (["--set", "data.folder=nowhere"], DataError, "nowhere: there is no such folder"),
        (["--set", "data.train_split=trian"], DataError, "there is no split 'trian'"),
        (["--set", "text.encoder=wrods"], ConfigError, "did you mean words"),
    ],
)
def test_mistake_is_explained_and_leaves_no_folder(
    config: Path, tmp_path: Path, extra: list[str], error: type[Exception], message: str
) -> None:
    result = RUNNER.invoke(app, ["train", str(config), "--out", str(tmp_path / "out"), *extra])
    with pytest.raises(error, match=message):
        raise result.exception or AssertionError("the command went well")
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_says_so_and_how_to_go_on(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "stopped in epoch 1 after 2 steps; saved in out, go on with --resume"

    def stopped(*arguments: object, **more: object) -> None:
        raise Stopped(said)

    monkeypatch.setattr("dciml.recipes.train.train", stopped)
    result = RUNNER.invoke(app, ["train", str(config), "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", f"dciml: {said}\n")


@pytest.mark.slow
def test_process_asked_to_stop_saves_says_so_and_goes_on_later(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dciml", "train", str(config), "--out", str(out), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    long = ["--set", "training.epochs=8"]
    process = subprocess.Popen(
        [*command, *long], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    patience = time.monotonic() + 120
    while not (out / CHECKPOINT_FILE).exists() and process.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.strip().splitlines()[-1].startswith("dciml: stopped in epoch ")
    assert stderr.strip().endswith("go on with --resume")
    assert "Traceback" not in stderr

    refused = RUNNER.invoke(app, ["train", str(config), "--out", str(out), *long])
    assert isinstance(refused.exception, ModelError)
    assert "go on with --resume" in str(refused.exception)
    result = RUNNER.invoke(app, ["train", str(config), "--out", str(out), "--quiet", *long, "--resume"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"model: {out}\n"
    assert json.loads(load_tensors(out / CHECKPOINT_FILE)[1]["progress"])["epoch"] == 8


@pytest.mark.parametrize(("ignored", "ends"), [(False, True), (True, False)])
def test_hangup_ends_a_command_unless_it_was_told_to_ignore_it(ignored: bool, ends: bool) -> None:
    code = (
        "import os, signal\n"
        f"signal.signal(signal.SIGHUP, signal.SIG_{'IGN' if ignored else 'DFL'})\n"
        "import dciml.cli.app\n"
        "dciml.cli.app.app = lambda: (os.kill(os.getpid(), signal.SIGHUP), print('went on', flush=True))\n"
        "from dciml.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == ((-signal.SIGHUP, b"") if ends else (0, b"went on\n"))


def test_commands_are_completed_and_h_is_help() -> None:
    env = os.environ | {"_DCIML_COMPLETE": "complete_bash", "COMP_WORDS": "dciml tr", "COMP_CWORD": "1"}
    done = subprocess.run([DCIML], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["train"]
    short, long = (
        subprocess.run([DCIML, "train", flag], capture_output=True, text=True) for flag in ("-h", "--help")
    )
    assert short.returncode == 0
    assert short.stdout == long.stdout
