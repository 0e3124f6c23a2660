"""A training run on a disk that is full, or that stops it at any operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_layer import Faults
from sweep import EXPECTED

from dciml.config import RunConfig
from dciml.folders import WEIGHTS_FILE
from dciml.recipes.train import train
from dciml.training.checkpoint import load_tensors

STEP = 20  # a run has some 250 operations, and takes half a second


def weights(folder: Path) -> dict[str, Any]:
    return {name: value.tolist() for name, value in load_tensors(folder / WEIGHTS_FILE)[0].items()}


# The thread that writes the events of tensorboard ends with the disk's error, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "crash"])
def test_a_run_that_failed_goes_on_and_ends_alike(
    tiny_config: Callable[..., RunConfig], tmp_path: Path, mode: Any
) -> None:
    config = tiny_config(training={"checkpoint_every_seconds": 1e9})
    counting = Faults(tmp_path / "whole")
    with counting.in_force():
        train(config, tmp_path / "whole", quiet=True)
    assert len(counting.log) > 100
    for number in range(0, len(counting.log), STEP):
        out = tmp_path / f"at{number}"
        faults = Faults(out, number, mode)
        with faults.in_force(), pytest.raises(EXPECTED):
            train(config, out, quiet=True)
        train(config, out, resume=out.exists(), quiet=True)
        assert weights(out) == weights(tmp_path / "whole"), faults.log[-1]
