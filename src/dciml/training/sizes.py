"""How large a model would be, before anything is allocated for it: settings and files can claim any size."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from dciml.errors import ConfigError, ModelError
from dciml.inputs import check_input_file

BYTES_A_PARAMETER = 16
"""Of a parameter in training: its value, its gradient, and the two moments of AdamW, in float32."""
GIGABYTE = 10**9


def refuse_too_large(make: Callable[[], nn.Module]) -> None:
    """Refuse to train a model that this machine's memory cannot hold.

    Raises:
        ConfigError: says how much it would take.
    """
    needed = BYTES_A_PARAMETER * sum(math.prod(shape) for shape in _shapes(make).values())
    there = _memory_bytes()
    if needed > there:
        raise ConfigError(
            f"a model of these settings takes {needed / GIGABYTE:,.0f} GB to train, and this machine has "
            f"{there / GIGABYTE:,.0f} GB in all; make the hidden widths or the numbers of layers smaller"
        )


def refuse_misfit(path: Path, make: Callable[[], nn.Module]) -> None:
    """Refuse weights that are not those of a model, by the head of their file alone.

    Raises:
        ModelError: they have other names or shapes, or the file is damaged.
    """
    if not path.exists():
        return  # who loads them says so
    check_input_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: the file is damaged ({error}); restore it or train again") from error
    wanted = _shapes(make)
    apart = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if apart:
        name = apart[0]
        raise ModelError(
            f"{path}: does not fit the settings beside it ({name} is {found.get(name, 'not there')}, by the settings "
            f"{wanted.get(name, 'not there')}; {len(apart)} of {len(wanted)} differ); restore the folder"
        )


def _shapes(make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Of all that a model keeps, without room for it."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return {name: tuple(value.shape) for name, value in make().state_dict().items()}


def _memory_bytes() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return math.inf
