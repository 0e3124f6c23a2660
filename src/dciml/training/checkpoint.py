"""Checkpoints: one safetensors file each, replaced atomically; and how large a model may be."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dciml.errors import ConfigError, ModelError
from dciml.files import atomic_path, remove_leftovers
from dciml.folders import CHECKPOINT_FILE, WEIGHTS_FILE
from dciml.inputs import check_input_file
from dciml.method import DualBranch

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


CHECKSUM = "crc32"  # in the metadata: over everything else in the file

Settings = dict[str, Any]  # flat: dotted key → plain value


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands: the next batch is `step_in_epoch` of `epoch`; and the best validation values so far."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: tuple[tuple[str, float], ...] = ()

    def best_of(self, side: str) -> float:
        """The best value of a side so far, higher is better; −∞ before the first."""
        return dict(self.best).get(side, float("-inf"))

    def with_best(self, side: str, value: float) -> tuple[tuple[str, float], ...]:
        """The best values with that of one side replaced."""
        return tuple(sorted((dict(self.best) | {side: value}).items()))


Optimizers = dict[str, torch.optim.Optimizer]


def save_checkpoint(
    folder: Path,
    model: DualBranch,
    optimizers: Optimizers,
    progress: RunProgress,
    settings: Settings,
    scaler: dict[str, Any],
) -> None:
    """Write weights, optimiser state and progress as one file; a kill leaves the old file or the new.

    Args:
        settings: what a resumed run must have in common with this one.
        scaler: state of the gradient scaler of half precision; {} where there is none.
    """
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers.values():
        for parameter, state in optimizer.state.items():
            tensors |= {f"optimizer/{names[parameter]}/{key}": torch.as_tensor(v) for key, v in state.items()}
    state = {"progress": asdict(progress), "settings": settings, "scaler": scaler}
    metadata = {key: json.dumps(value) for key, value in state.items()}
    save_tensors(folder / CHECKPOINT_FILE, tensors, metadata)


def load_checkpoint(
    folder: Path, model: DualBranch, optimizers: Optimizers, settings: Settings
) -> tuple[RunProgress, dict[str, Any]]:
    """Put weights and optimiser state back in place.

    Returns: the progress, and the state of the gradient scaler.
    Raises:
        ModelError: there is no checkpoint, it is damaged, or it was made with other settings.
    """
    tensors, metadata = load_tensors(folder / CHECKPOINT_FILE)
    if not {"progress", "settings", "scaler"} <= metadata.keys():
        raise ModelError(f"{folder / CHECKPOINT_FILE}: this is no checkpoint of this version; train again")
    _refuse_other_settings(folder, json.loads(metadata["settings"]), settings)
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    parameters = dict(model.named_parameters())
    for optimizer in optimizers.values():
        own = {p for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in parameters.items():
            prefix = f"optimizer/{name}/"
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if parameter in own and state:
                # A fused optimiser wants its step counter on the device too.
                optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
    fields = json.loads(metadata["progress"])
    best = tuple((str(side), float(value)) for side, value in fields.pop("best"))
    return RunProgress(**fields, best=best), json.loads(metadata["scaler"])


def _refuse_other_settings(folder: Path, before: Settings, now: Settings) -> None:
    now = json.loads(json.dumps(now))  # as it is once written and read
    gone = [key for key in before if key not in now]
    if gone:
        raise ModelError(
            f"{folder}: the run was begun by another version, whose setting {', '.join(gone)} is none of this one; "
            "finish it with that version, or train again into another folder"
        )
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)} and is {now[key]}" for key in changed)
        raise ModelError(
            f"{folder}: the run was made with other settings ({listed}); resume with the same ones"
        )


def remove_half_written(folder: Path) -> None:
    """Remove what a killed run left in its locked folder; safetensors writes into a `.tmp…` of its own first."""
    remove_leftovers(folder)
    for pattern in (f".{CHECKPOINT_FILE}.*", f".{WEIGHTS_FILE}.*", ".tmp??????"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file with a checksum, atomically, from any device."""
    plain = {key: value.detach().to("cpu").contiguous() for key, value in tensors.items()}
    content = save(plain, metadata | {CHECKSUM: str(_checksum(plain, metadata))})
    # Not by `save_file`: it leaves files of its own behind, and a full disk is another error there than elsewhere.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(_in_order(content))


def _in_order(content: bytes) -> tuple[bytes, bytes, memoryview]:
    """The same file in three pieces, its metadata sorted: safetensors orders them anew in each call."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little"), text, memoryview(content)[8 + size :]


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file and its metadata; files of before have no checksum, and are taken as they are.

    Raises:
        ModelError: missing or damaged.
        DataError: no regular file; a pipe would never end.
    """
    if not path.exists():
        raise ModelError(f"{path}: there is no such file; train first, or check the folder")
    check_input_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: the file is damaged ({error}); restore it or train again") from error
    known = metadata.pop(CHECKSUM, None)
    if known is not None and known != str(_checksum(tensors, metadata)):
        raise ModelError(
            f"{path}: the file is damaged (it does not match its checksum); restore it or train again"
        )
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> int:
    """CRC-32 over names, types, shapes and bytes of all tensors, and the metadata."""
    crc = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for key, value in sorted(tensors.items()):
        crc = zlib.crc32(f"{key} {value.dtype} {tuple(value.shape)}".encode(), crc)
        if value.numel():  # an empty one may have strides that cannot be viewed
            crc = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc
