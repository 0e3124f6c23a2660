"""What stands in the place of weights or of cached text and is no file is refused, and not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch import nn

from dciml.errors import DataError
from dciml.features.encoded_text import read_arrays
from dciml.recipes.inspect import inspect_model
from dciml.training.checkpoint import load_tensors, refuse_misfit


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    (tmp_path / "model.json").write_text('{"kind": "dciml"}')
    with pytest.raises(DataError, match="a pipe, not a regular file"):
        load_tensors(pipe)
    with pytest.raises(DataError, match="a pipe, not a regular file"):
        refuse_misfit(pipe, lambda: nn.Linear(2, 2))
    with pytest.raises(DataError, match="a pipe, not a regular file"):
        inspect_model(tmp_path)
    with pytest.raises(ValueError, match="no regular file"):
        read_arrays(pipe)
