"""Two processes with half the batch each end where one with the whole batch ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from dciml.config import RunConfig, dump_config
from dciml.errors import DataError, ModelError
from dciml.folders import CHECKPOINT_FILE, WEIGHTS_FILE
from dciml.method.outputs import RetrievalOutput
from dciml.recipes.train import train
from dciml.training.checkpoint import load_tensors
from dciml.training.steps import any_process, gather_output, gather_rows, mean_over_all, sum_gradients

MakeConfig = Callable[..., RunConfig]
RunTwo = Callable[..., None]


def test_one_process_sees_its_own_rows_only() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(fabric, rows) is rows
    assert torch.equal(mean_over_all(fabric, rows), rows.mean())
    output = RetrievalOutput(rows, rows[:, None], rows, torch.arange(3))
    assert gather_output(fabric, output) is output
    assert any_process(fabric, True) is True
    assert any_process(fabric, False) is False
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    sum_gradients(fabric, [parameter])
    assert parameter.grad.tolist() == [3.0, 3.0]


def torchrun(config: RunConfig, folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """`torchrun` with the command itself, as a user types it."""
    (folder / "two.yaml").write_text(dump_config(config))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "dciml", "train",
        str(folder / "two.yaml"), "--out", str(folder / "two"), "--quiet", *extra,
    ]  # fmt: skip
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False, cwd=folder
    )


# What torchrun tells each process.
RANK = """
import os
os.environ.update(
    RANK="{rank}", LOCAL_RANK="{rank}", GROUP_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
    MASTER_ADDR="127.0.0.1", MASTER_PORT="{port}", TORCHELASTIC_RUN_ID="none",
)
{before}
train(load_config(Path({config!r})), Path({out!r}), quiet=True)
"""

# A scheduler sends its signal to one process only.
STOPPED = """
import signal
from dciml.recipes import train as recipe
from dciml.training.progress import Stopped

step, calls = recipe.training_step, []
def stepped(*args):
    calls.append(0)
    if int(os.environ["RANK"]) == 0 and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*args)
recipe.training_step = stepped

run = train
def train(*args, **how):
    try:
        run(*args, **how)
    except Stopped as stopped:
        assert "after 2 steps" in str(stopped)
        return
    raise AssertionError("the run was not stopped")
"""


@pytest.fixture
def two_ranks(start: Callable[[str], ForkServerProcess]) -> RunTwo:
    """Runs a configuration in two processes, into the folder `two`."""

    def run(config: RunConfig, folder: Path, before: str = "") -> None:
        (folder / "two.yaml").write_text(dump_config(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        paths = {"config": str(folder / "two.yaml"), "out": str(folder / "two")}
        processes = [start(RANK.format(rank=rank, port=port, before=before, **paths)) for rank in range(2)]
        for process in processes:
            process.join(timeout=120)
            assert process.exitcode == 0

    return run


def assert_like_one(
    run: RunTwo,
    make: MakeConfig,
    folder: Path,
    **training: object,
) -> None:
    """Random negatives and no pathways in epoch 0, hard negatives and all pathways from epoch 1 on."""
    base = make().model_dump(exclude_defaults=True)

    def settings(batch_videos: int) -> RunConfig:
        return make(
            retrieval={**base["retrieval"], "dropout": 0.0, "hard_pool_size": 3},
            grounding={**base["grounding"], "dropout": 0.0},
            training={**base["training"], **training, "batch_videos": batch_videos},
        )

    run(settings(4), folder)
    assert len(list((folder / "two" / "tensorboard").glob("events.*"))) == 1  # one process writes
    train(settings(8), folder / "one", quiet=True)
    saved = [load_tensors(folder / kind / CHECKPOINT_FILE)[0] for kind in ("one", "two")]
    assert_close(*saved, real=real_elements(saved[0]))
    kept = [load_tensors(folder / kind / WEIGHTS_FILE)[0] for kind in ("one", "two")]
    assert_close(*kept, real={key.removeprefix("model/"): v for key, v in real_elements(saved[0]).items()})


def real_elements(checkpoint: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Where a parameter has a gradient at all.

    A bias of attention keys shifts all scores of a query alike, so its gradient is 0 but for rounding, of which
    Adam makes steps of full size.
    """
    moments = {key: value for key, value in checkpoint.items() if key.endswith("/exp_avg_sq")}
    real = {
        key.replace("optimizer/", "model/").removesuffix("/exp_avg_sq"): (value == 0) | (value.sqrt() > 1e-9)
        for key, value in moments.items()
    }
    assert sum(int(v.sum()) for v in real.values()) > 0.95 * sum(v.numel() for v in real.values())
    return real


def assert_close(
    one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], real: dict[str, torch.Tensor]
) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        elements = real.get(key, torch.ones_like(value, dtype=torch.bool))
        torch.testing.assert_close(
            two[key][elements],
            value[elements],
            rtol=1e-5,
            atol=1e-6,
            msg=lambda text, key=key: f"{key}: {text}",
        )


def test_two_processes_end_like_one_with_the_double_batch(
    two_ranks: RunTwo, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    assert_like_one(two_ranks, tiny_config, tmp_path)
    # The comparison can fail: one process with half the batch ends elsewhere.
    train(tiny_config(training={"batch_videos": 4}), tmp_path / "half", quiet=True)
    one, half = (load_tensors(tmp_path / kind / WEIGHTS_FILE)[0] for kind in ("one", "half"))
    with pytest.raises(AssertionError, match="not close"):
        assert_close(one, half, real={})


@pytest.mark.slow
def test_torchrun_ends_like_one_process_and_speaks_once(tiny_config: MakeConfig, tmp_path: Path) -> None:
    def run(config: RunConfig, folder: Path) -> None:
        done = torchrun(config, folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("model: ") == 1

    assert_like_one(run, tiny_config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "training", [{"mode": "joint"}, {"epochs": 4, "max_sentences_per_video": 1}, {"clip_norm": 0.01}]
)
def test_two_processes_end_like_one_in_other_modes(
    two_ranks: RunTwo, tiny_config: MakeConfig, tmp_path: Path, training: dict[str, object]
) -> None:
    assert_like_one(two_ranks, tiny_config, tmp_path, **training)


def test_signal_to_one_process_stops_both_at_the_same_step(
    two_ranks: RunTwo, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    two_ranks(tiny_config(), tmp_path, STOPPED)
    progress = json.loads(load_tensors(tmp_path / "two" / CHECKPOINT_FILE)[1]["progress"])
    assert (progress["step"], progress["step_in_epoch"]) == (2, 2)


@pytest.mark.slow
def test_run_of_two_processes_resumes_with_two_only(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(training={"batch_videos": 4, "epochs": 1, "accelerator": "cpu"})
    assert torchrun(config, tmp_path).returncode == 0
    again = torchrun(config, tmp_path, "--resume")
    assert again.returncode == 0, again.stderr
    refused = torchrun(config, tmp_path)
    assert refused.returncode != 0
    assert "holds a run already" in refused.stderr
    with pytest.raises(ModelError, match="number of processes was 2 and is 1"):
        train(config, tmp_path / "two", resume=True, quiet=True)


def test_fewer_videos_than_processes_are_refused(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dciml.recipes.train.epoch_groups", lambda *_: [])
    with pytest.raises(DataError, match="fewer training videos than processes"):
        train(tiny_config(), tmp_path / "m", quiet=True)
