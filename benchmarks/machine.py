"""What the machine that a benchmark runs on can do."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import torch

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


def peak_bandwidth(device: torch.device, megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy that no cache holds; in GB/s, the best of five."""
    x = torch.randn(megabytes * 2**18, device=device)
    y = torch.empty_like(x)
    best = float("inf")
    for _ in range(5):
        start = perf_counter()
        y.copy_(x)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, perf_counter() - start)
    return 2 * x.numel() * 4 / best / 1e9


def peak_gflops(device: torch.device, size: int = 2048) -> float:
    """What a large matrix product in float32 reaches, the best of five."""
    x = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(5):
        start = perf_counter()
        x @ x
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, perf_counter() - start)
    return 2 * size**3 / best / 1e9
