"""The device of the tests that want a GPU, and what runs on it.

pytest -m gpu tests/gpu                               # on the GPU
DCIML_GPU_TESTS_ON_CPU=1 pytest -m gpu tests/gpu      # the same tests on the processor, to test the tests
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ON_CPU = "DCIML_GPU_TESTS_ON_CPU"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are for a GPU."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> str:
    """`cuda`; or `cpu` where the variable says so; else the test is skipped."""
    if os.environ.get(ON_CPU) == "1":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip(f"there is no CUDA device; {ON_CPU}=1 runs the same test on the processor")
    return "cuda"


@pytest.fixture
def cuda(device: str) -> str:
    """`cuda`; else the test is skipped."""
    if device != "cuda":
        pytest.skip("asks CUDA itself")
    return device
