"""Processes for tests that kill or pair runs: forked from one that has imported the slow packages already."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess

import pytest

PRELUDE = """
import torch
torch.set_num_threads(1)
from pathlib import Path
from dciml.config import load_config
from dciml.recipes.train import train
"""


@pytest.fixture
def start() -> Iterator[Callable[[str], ForkServerProcess]]:
    """Starts a process that runs some code; none outlives the test."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dciml.recipes.train", "torch.utils.tensorboard", "textblob.en"])
    started: list[ForkServerProcess] = []

    def begin(code: str) -> ForkServerProcess:
        process = context.Process(target=exec, args=(PRELUDE + code, {}))
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()
