"""What the machine that a benchmark runs on can do."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from dciml.files import write_json

KIB = 1024


def has_bf16(device: torch.device) -> bool:
    """Has it instructions for products in bf16?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def free_bytes(device: torch.device) -> float:
    """Memory that could be had now; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    return _kib("/proc/meminfo", "MemAvailable") or float("inf")


def peak_bytes(device: torch.device) -> float:
    """The most that was held: by the device's allocator, or by the process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * float(KIB)


def _kib(file: str, key: str) -> float | None:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(f"{key}:"):
                return float(line.split()[1]) * KIB
    return None


def peak_bandwidth(device: torch.device, megabytes: int | None = None) -> float:
    """Bytes a second, read and written, of a copy that no cache holds; in GB/s, the best of five.

    Args:
        megabytes: of the copy; 256 on a processor, 2,048 on a GPU.
    """
    x = torch.randn((megabytes or (2048 if device.type == "cuda" else 256)) * 2**18, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / _best_of_five(lambda: y.copy_(x), device) / 1e9


def peak_gflops(device: torch.device, size: int | None = None, dtype: torch.dtype = torch.float32) -> float:
    """What a large matrix product reaches, the best of five.

    Args:
        size: of the square matrices; 2,048 on a processor, 8,192 on a GPU.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    x = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _best_of_five(lambda: x @ x, device) / 1e9


def _best_of_five(work: Callable[[], object], device: torch.device) -> float:
    """Seconds; the first call, which warms up, is not counted."""
    best = float("inf")
    for number in range(6):
        start = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            best = min(best, perf_counter() - start)
    return best


def write_figures(file: Path | None, figures: Mapping[str, Any]) -> None:
    """Write what a benchmark measured, as JSON; nowhere where no file is named."""
    if file is not None:
        write_json(file, {"device": card_name(), "torch": torch.__version__, **figures})


def card_name() -> str:
    """Of the first GPU; else of the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"no GPU; {line.partition(':')[2].strip()}"
    return "no GPU"
