"""Checkpoints: what comes back, what is refused, and what a kill leaves behind."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dciml.config import RunConfig, dump_config
from dciml.errors import ModelError
from dciml.folders import CHECKPOINT_FILE, WEIGHTS_FILE
from dciml.locks import LOCK_FILE
from dciml.method.mutual import DualBranch
from dciml.model_folder import ModelCard, build_dual
from dciml.recipes.train import make_optimizers, train
from dciml.training.checkpoint import (
    RunProgress,
    load_checkpoint,
    load_tensors,
    remove_half_written,
    save_checkpoint,
    save_tensors,
)

MakeConfig = Callable[..., RunConfig]
Start = Callable[[str], ForkServerProcess]


def make_model(config: RunConfig, seed: int = 0) -> DualBranch:
    torch.manual_seed(seed)
    return build_dual(config, ModelCard("dciml", 1, "test-encoder", "words", 16, 16, 16, 20))


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_checkpoint_brings_everything_back(tiny_config: MakeConfig, tmp_path: Path, mode: str) -> None:
    config = tiny_config(training={"mode": mode})
    model = make_model(config)
    optimizers = make_optimizers(config, model)
    for step in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
        for optimizer in optimizers.values():
            optimizer.step()
    progress = RunProgress(3, 2, 11, (("grounding", -1.25), ("retrieval", 0.1)))
    settings, scaler = {"seed": 1, "windows": [None, 0.5]}, {"scale": 65536.0, "_growth_tracker": 3}
    save_checkpoint(tmp_path, model, optimizers, progress, settings, scaler)

    other = make_model(config, seed=1)
    fresh = make_optimizers(config, other)
    assert load_checkpoint(tmp_path, other, fresh, settings) == (progress, scaler)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    for name, optimizer in optimizers.items():
        pairs = zip(optimizer.param_groups, fresh[name].param_groups, strict=True)
        for group, new_group in pairs:
            for parameter, new in zip(group["params"], new_group["params"], strict=True):
                before, after = optimizer.state[parameter], fresh[name].state[new]
                assert before.keys() == after.keys() >= {"step", "exp_avg", "exp_avg_sq"}
                assert all(torch.equal(before[key], after[key]) for key in before)


def test_other_settings_are_named_even_when_two_are_swapped(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    model = make_model(config)
    optimizers = make_optimizers(config, model)
    save_checkpoint(tmp_path, model, optimizers, RunProgress(), {"a.x": 1, "b.x": 2, "c": None}, {})
    with pytest.raises(
        ModelError, match=r"\(a\.x was 1 and is 2; b\.x was 2 and is 1; d was None and is 5\)"
    ):
        load_checkpoint(tmp_path, model, optimizers, {"a.x": 2, "b.x": 1, "c": None, "d": 5})


def test_a_run_of_another_version_is_named_as_such(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    model = make_model(config)
    optimizers = make_optimizers(config, model)
    save_checkpoint(tmp_path, model, optimizers, RunProgress(), {"seed": 1, "training.parts": 4}, {})
    with pytest.raises(
        ModelError, match=r"another version, whose setting training\.parts is none of this one"
    ):
        load_checkpoint(tmp_path, model, optimizers, {"seed": 1})


def test_tensors_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"x\.safetensors: there is no such file"):
        load_tensors(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"x\.safetensors: the file is damaged"):
        load_tensors(tmp_path / "x.safetensors")


def test_no_bit_of_a_tensors_file_can_change_unseen(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(4).bfloat16()}
    save_tensors(file, tensors, {"epoch": "7"})
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with suppress(ModelError):
            found, metadata = load_tensors(file)  # the name of the checksum changed, or white space
            assert metadata.items() >= {"epoch": "7"}.items()
            assert all(torch.equal(found[key], value) for key, value in tensors.items())
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ModelError, match=r"x\.safetensors: the file is damaged.*checksum.*train again"):
        load_tensors(file)


def test_tensors_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"epoch": "7"})
    found, metadata = load_tensors(tmp_path / "x.safetensors")
    assert (found["a"].tolist(), metadata) == ([1, 1], {"epoch": "7"})


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path: Path) -> None:
    halves = (f".{CHECKPOINT_FILE}.x1", f".{WEIGHTS_FILE}.x2", ".tmpIa3a5Y")
    for name in (*halves, CHECKPOINT_FILE, WEIGHTS_FILE, ".keep"):
        (tmp_path / name).touch()
    remove_half_written(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT_FILE, WEIGHTS_FILE, ".keep"}


def check_kills(make: MakeConfig, start: Start, tmp_path: Path, kills: int, epochs: int) -> None:
    """Kill a run at random moments after its folder appears, resume each time, and compare with an unbroken run.

    The moments are within a quarter of what the unbroken run takes here, so that a fast machine is not done before.
    """
    config = make(training={"checkpoint_every_seconds": 1e-9, "epochs": epochs})
    ends: list[float] = []
    train(config, tmp_path / "whole", quiet=True, on_epoch=lambda _: ends.append(time.monotonic()))
    longest = (ends[-1] - ends[0]) / 4
    (tmp_path / "c.yaml").write_text(dump_config(config))
    out, draw, killed = tmp_path / "m", random.Random(0), 0
    for _ in range(kills):
        process = start(f"train(load_config(Path({str(tmp_path / 'c.yaml')!r})), Path({str(out)!r}), "
                        "resume=True, quiet=True)")  # fmt: skip
        before = stamp(out)
        while stamp(out) == before and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, longest))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
        for file in out.glob("*.safetensors"):
            load_tensors(file)
    assert killed >= 1  # the others were at their end already
    train(config, out, resume=True, quiet=True)
    for name in (CHECKPOINT_FILE, WEIGHTS_FILE):
        left, right = load_tensors(out / name)[0], load_tensors(tmp_path / "whole" / name)[0]
        assert left.keys() == right.keys()
        assert all(torch.equal(value, right[key]) for key, value in left.items())
    assert [path.name for path in out.glob(".*")] == [LOCK_FILE]


def stamp(out: Path) -> int | None:
    """When the run's settings were last written, which each start does just before its first step."""
    file = out / "run.json"
    return file.stat().st_mtime_ns if file.exists() else None


def test_killed_run_can_go_on_and_ends_alike(tiny_config: MakeConfig, start: Start, tmp_path: Path) -> None:
    check_kills(tiny_config, start, tmp_path, 3, epochs=4)


@pytest.mark.slow
def test_run_killed_many_times_ends_alike(tiny_config: MakeConfig, start: Start, tmp_path: Path) -> None:
    check_kills(tiny_config, start, tmp_path, 30, epochs=30)


def test_same_tensors_and_metadata_give_the_same_file(tmp_path: Path) -> None:
    tensors = {name: torch.arange(3.0) for name in ("b", "a")}
    metadata = {key: f"wert für {key} 映" for key in ("epoch", "kind", "progress", "scaler")}
    for number in range(8):
        save_tensors(tmp_path / f"{number}", tensors, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert load_tensors(tmp_path / "0")[1] == metadata
