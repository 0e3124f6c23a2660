"""Whole runs on the device: the same seed, a run that was stopped, and two processes, all by their losses.

A processor gives the same sums each time. A GPU adds gradients up in any order, so that its losses are held to a part
in a thousand; whether they were the same to the bit is kept as a property of the test.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dciml.config import RunConfig, dump_config
from dciml.recipes import train as recipe
from dciml.training.progress import Stopped

MakeConfig = Callable[..., RunConfig]
Losses = list[dict[str, float]]
Record = Callable[[str, object], None]
NEAR = {"cpu": 1e-4, "cuda": 1e-3}


def losses_of(
    config: RunConfig,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stop_after: int | None = None,
    resume: bool = False,
) -> Losses:
    """Train in this process; the losses of each step."""
    found: Losses = []
    step = recipe.training_step

    def noted(*args: object) -> dict[str, float]:
        found.append(step(*args))  # type: ignore[arg-type]
        if len(found) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return found[-1]

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "training_step", noted)
        recipe.train(config, out, resume=resume, quiet=True)
    return found


def assert_near(found: Losses, expected: Losses, near: float) -> None:
    assert len(found) == len(expected)
    for number, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert left == pytest.approx(right, rel=near, abs=near), f"step {number}"


def test_same_seed_gives_the_same_losses(
    device: str,
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    config = tiny_config(training={"accelerator": device})
    first, second = (losses_of(config, tmp_path / name, monkeypatch) for name in ("a", "b"))
    record_property("same losses to the bit", first == second)
    assert_near(second, first, NEAR[device] if device == "cuda" else 0.0)
    other = losses_of(tiny_config(seed=5, training={"accelerator": device}), tmp_path / "c", monkeypatch)
    with pytest.raises(AssertionError):  # the comparison can fail
        assert_near(other, first, NEAR[device])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stopped_and_resumed_run_equals_an_unbroken_one(
    device: str,
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
    precision: str,
) -> None:
    config = tiny_config(training={"accelerator": device, "precision": precision})
    whole = losses_of(config, tmp_path / "whole", monkeypatch)
    with pytest.raises(Stopped, match="after 2 steps"):
        losses_of(config, tmp_path / "broken", monkeypatch, stop_after=2)
    rest = losses_of(config, tmp_path / "broken", monkeypatch, resume=True)
    record_property("same losses to the bit", rest == whole[2:])
    assert_near(rest, whole[2:], NEAR[device] if device == "cuda" else 0.0)


RANK = """
import json, sys
from pathlib import Path
from lightning_fabric.strategies import DDPStrategy
from dciml.config import load_config
from dciml.recipes import train as recipe

fabric, step, found = recipe.Fabric, recipe.training_step, []

def with_gloo(**settings):  # NCCL refuses two processes on one card
    assert settings["num_nodes"] == 2 and settings["strategy"] == "ddp"
    return fabric(**{**settings, "strategy": DDPStrategy(process_group_backend="gloo")})

def noted(*args):
    found.append(step(*args))
    return found[-1]

recipe.Fabric, recipe.training_step = with_gloo, noted
config, out, losses = map(Path, sys.argv[1:])
recipe.train(load_config(config), out, quiet=True)
losses.write_text(json.dumps(found))
"""


def two_processes(config: RunConfig, folder: Path) -> list[Losses]:
    """Two nodes of one process each, as torchrun tells them, so that both take the first card."""
    (folder / "two.yaml").write_text(dump_config(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(2):
        ranks = {"RANK": str(rank), "GROUP_RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        ranks |= {"LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ranks | {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
        paths = [str(folder / name) for name in ("two.yaml", "two", f"losses-{rank}.json")]
        command = [sys.executable, "-c", RANK, *paths]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        ends = [process.communicate(timeout=150) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, said) in zip(started, ends, strict=True):
        assert process.returncode == 0, said[-2000:]
    return [json.loads((folder / f"losses-{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_on_one_card_agree_with_one(
    device: str, tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_config().model_dump(exclude_defaults=True)

    def settings(batch_videos: int) -> RunConfig:
        return tiny_config(
            retrieval={**base["retrieval"], "dropout": 0.0, "hard_pool_size": 3},
            grounding={**base["grounding"], "dropout": 0.0},
            training={**base["training"], "accelerator": device, "batch_videos": batch_videos},
        )

    both = two_processes(settings(4), tmp_path)
    one = losses_of(settings(8), tmp_path / "one", monkeypatch)
    assert_near(both[0], both[1], 1e-6)
    assert_near(both[0], one, NEAR[device])
    half = losses_of(settings(4), tmp_path / "half", monkeypatch)
    with pytest.raises(AssertionError):  # the comparison can fail
        assert_near(both[0], half[: len(one)], NEAR[device])
