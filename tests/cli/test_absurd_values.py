"""Numbers, devices and environments that make no sense end in a sentence, before anything is allocated or begun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig, dump_config
from dciml.errors import ConfigError, ModelError
from dciml.folders import WEIGHTS_FILE
from dciml.model_folder import load_model
from dciml.recipes.train import make_fabric
from dciml.training.checkpoint import save_tensors

RUNNER = CliRunner()
MakeConfig = Callable[..., RunConfig]
HUGE = "99999999999999999999999999"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"seed={HUGE}", "seed: Input should be less than"),
        (f"training.epochs={HUGE}", "training.epochs"),
        (f"training.threads={HUGE}", "training.threads"),
        (f"training.devices={HUGE}", "training.devices"),
        ("training.retrieval_lr=1e400", "finite"),
        ("training.devices=64", "64 processes are wanted (training.devices), but there are"),
        ("grounding.hidden=16384", "GB to train, and this machine has"),
    ],
)
def test_absurd_settings_are_told_before_the_run_begins(
    tiny_config: MakeConfig, tmp_path: Path, setting: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("dciml.training.checkpoint._memory_bytes", lambda: 2.0**33)
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_config(tiny_config(grounding={"layers": 8})))
    result = RUNNER.invoke(app, ["train", str(file), "--out", str(tmp_path / "out"), "--set", setting])
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line",
    [
        ["baseline", "shared-space", "d", "--out", "o", "--seed", HUGE],
        ["baseline", "shared-space", "d", "--out", "o", "--epochs", HUGE],
        ["demo", "--seed", HUGE],
        ["demo", "--workers", "10000"],
        ["extract", "v", "--out", "o", "--workers", "10000"],
        ["extract", "v", "--out", "o", "--rows-per-second", "1e-300"],
        ["extract", "v", "--out", "o", "--rows-per-second", "inf"],
        ["import", "records", "--split", "a=b", "--features", "f", "--out", "o", "--rows-per-second", "inf"],
        ["serve", "i", "--port", "99999"],
        ["serve", "i", "--search-threads", "1000000"],
        ["search", "i", "s", "-k", "0"],
        ["similar", "i", "v", "nan", "1"],
    ],
    ids=" ".join,
)
def test_absurd_numbers_are_wrong_calls(line: list[str]) -> None:
    result = RUNNER.invoke(app, line)
    assert result.exit_code == 2
    assert "Invalid value" in result.output


@pytest.mark.parametrize("device", ["nonsense", "", "meta", "cuda:99", "cpu:x"])
def test_unknown_devices_are_told(tmp_path: Path, device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        load_model(tmp_path, device)


def test_a_run_without_gpu_or_of_half_a_torchrun_says_so(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no GPU"):
            make_fabric(tiny_config(training={"accelerator": "cuda"}))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="what torchrun sets"):
        make_fabric(tiny_config())


def test_weights_of_another_size_are_refused_by_their_head_alone(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_config(tiny_config(training={"epochs": 1})))
    out = tmp_path / "out"
    assert RUNNER.invoke(app, ["train", str(file), "--out", str(out), "--quiet"]).exit_code == 0
    load_model(out)
    settings = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(settings.replace("hidden: 16", "hidden: 16384"))  # 8 GB of weights
    monkeypatch.setattr("dciml.model_folder.load_tensors", None)
    with pytest.raises(ModelError, match="does not fit the settings beside it"):
        load_model(out)
    (out / "config.yaml").write_text(settings)
    save_tensors(out / WEIGHTS_FILE, {}, {})
    with pytest.raises(ModelError, match=r"is not there, by the settings \("):
        load_model(out)


def dciml(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own, after some code."""
    program = f"import os, sys\n{code}\nfrom dciml.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, "inspect", "caf\u00e9 \u2013"],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    told = dciml(
        f"os.mkdir({str(tmp_path / 'g')!r}); os.chdir({str(tmp_path / 'g')!r}); os.rmdir(os.getcwd())"
    )
    assert told.returncode == 1
    assert told.stderr.startswith(b"dciml: the folder that you are in is gone. To mend it: ")


def test_rank_that_is_no_number_is_told() -> None:
    told = dciml("", RANK="x")
    assert told.returncode == 1
    assert told.stderr.startswith(
        b"dciml: the environment variable RANK is 'x', not the number of a process."
    )


def test_terminal_without_the_letters_gets_them_by_number() -> None:
    code = "import dciml.cli.app, typer\ndciml.cli.app.app = lambda: print('caf\u00e9 \u2013 \ud83d'.strip())"
    told = dciml(code.replace("\ud83d", "\\ud83d"), PYTHONIOENCODING="ascii")
    assert (told.returncode, told.stderr) == (0, b"")
    assert told.stdout.strip() == rb"caf\xe9 \u2013 \ud83d"


def test_interrupt_while_loading_is_quiet() -> None:
    code = "import builtins\nreal = builtins.__import__\ndef hooked(name, *a):\n"
    code += "    if name == 'dciml.cli.app': raise KeyboardInterrupt\n    return real(name, *a)\n"
    told = dciml(code + "builtins.__import__ = hooked")
    assert (told.returncode, told.stdout, told.stderr) == (130, b"", b"")


def test_closed_standard_error_does_not_send_errors_to_the_output() -> None:
    told = dciml("sys.stderr = None")
    assert (told.returncode, told.stdout) == (1, b"")
