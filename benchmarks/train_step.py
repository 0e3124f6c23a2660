"""Queries per second, memory and operations of a training step, beside the plain path of the same losses.

    python benchmarks/train_step.py --shape activitynet --reference

All pathways are on and both branches take their turn. `--reference` also runs the plain path (tests/oracle), with the
steps of the two in turn, so that the ratio is of one run. Inputs are random: only their shapes matter for time.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from lightning_fabric import Fabric
from shapes import SHAPES, Shape, make_batch, make_config, make_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dciml.batching import Batch
from dciml.models.mutual import best_clip
from dciml.recipes.train import make_optimizers
from dciml.training.steps import Step, training_step

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
from multiply_adds import multiply_adds
from plain_step import plain_training_step

TrainingStep = Callable[[Step, Batch, dict[str, torch.optim.Optimizer]], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="activitynet")
    parser.add_argument("--reference", action="store_true", help="also time the plain path")
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each path")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed or 16-mixed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SHAPES[options.shape]
    accelerator, device = ("cpu", torch.device("cpu"))
    if options.device != "cpu":
        accelerator, device = "cuda", torch.device(options.device)
    fabric = Fabric(accelerator=accelerator, devices=1, precision=options.precision)
    bench = Bench(shape, fabric, device)
    print(f"{options.shape}: {shape}\n{options.threads} threads, {device}, {options.precision}")
    peak, bandwidth = peak_gflops(device), peak_bandwidth(device)
    print(f"here and now: a large matrix product {peak:.0f} GFLOP/s, a large copy {bandwidth:.1f} GB/s\n")
    paths: dict[str, TrainingStep] = {"fast": training_step}
    if options.reference:
        paths["plain"] = plain_training_step
    results = bench.times(paths, options.rounds)
    for name, path in paths.items():
        operations = bench.operations(path)
        wall, cpu, memory = results[name]
        print(
            f"{name:5} {shape.queries / wall:7.2f} queries/s   {wall:7.2f} s a step   {cpu:7.2f} s of processor   "
            f"{operations / shape.queries / 1e9:6.2f} GMAC a query   {2 * operations / wall / 1e9:6.1f} GFLOP/s   "
            f"peak {memory / 2**30:.2f} GiB"
        )
    if options.reference:
        fast, plain = results["fast"], results["plain"]
        print(
            f"ratio plain / fast: {plain[0] / fast[0]:.1f} in time, {plain[1] / fast[1]:.1f} in processor time"
        )
    print(
        "\nparts of the fast path, forward only; the floor is the larger of operations / peak and bytes / bandwidth:"
    )
    for name, seconds, operations, moved in bench.parts():
        floor = max(2 * operations / (peak * 1e9), moved / (bandwidth * 1e9))
        print(
            f"  {name:22} {operations / shape.queries / 1e9:6.3f} GMAC a query   {moved / 2**30:6.2f} GiB in and out   "
            f"{1000 * seconds:7.0f} ms   floor {1000 * floor:6.0f} ms"
        )


class Bench:
    """A model, a batch and two optimisers."""

    def __init__(self, shape: Shape, fabric: Fabric, device: torch.device) -> None:
        self.device = device
        config = make_config(shape)
        self.model = make_model(shape, config).to(device)
        self.batch = make_batch(shape).to(device)
        self.step = Step(fabric, self.model, config, 0, torch.Generator().manual_seed(0))
        self.optimizers = make_optimizers(config, self.model)

    def run(self, path: TrainingStep) -> None:
        path(self.step, self.batch, self.optimizers)

    def times(self, paths: dict[str, TrainingStep], rounds: int) -> dict[str, tuple[float, float, float]]:
        """Median seconds by the clock and of the processor, and peak bytes; after one uncounted step of each path."""
        memory, taken = {}, {name: [] for name in paths}
        for name, path in paths.items():  # the fast path first: a process's peak only grows
            with self._peak() as peak:
                self.run(path)
            memory[name] = peak[0]
        for _ in range(rounds):
            for name, path in paths.items():
                wall, cpu = perf_counter(), process_time()
                self.run(path)
                self._wait()
                taken[name].append((perf_counter() - wall, process_time() - cpu))
        return {
            name: (median(w for w, _ in times), median(c for _, c in times), memory[name])
            for name, times in taken.items()
        }

    def operations(self, path: TrainingStep) -> float:
        """Multiply–adds of the matrix products of a step."""
        return multiply_adds(lambda: self.run(path))

    def parts(self) -> Iterator[tuple[str, float, float, float]]:
        """Name, seconds, multiply–adds and bytes of each part's forward pass."""
        grounding, batch = self.model.grounding, self.batch
        with torch.no_grad():
            selection = grounding.select(batch)
            watched = grounding.watch(batch.videos)
            sampled = watched.sampled
            weights = grounding.log_weights(selection.proposals)[:, 0]
            memory = grounding.encode_under(sampled, batch.video_of_query, weights)
            every = torch.arange(len(weights), device=self.device)
            for name, part in {
                "select, all of it": lambda: grounding.select(batch),
                "propose": lambda: grounding.propose(
                    grounding.watch(batch.videos), batch.queries, batch.video_of_query
                ),
                "frames, one proposal": lambda: grounding.encode_under(
                    sampled, batch.video_of_query, weights
                ),
                "words, one proposal": lambda: grounding.sentence_nll(batch.queries, memory, every),
                "grounding, all of it": lambda: grounding(batch, selection.best_index, 1.0),
                "retrieval, all of it": lambda: self.model.retrieval(batch),
                "best clip": lambda: best_clip(self.model.retrieval, batch),
            }.items():
                part()
                self._wait()
                start = perf_counter()
                part()
                self._wait()
                seconds = perf_counter() - start
                with BytesMoved() as moved:
                    part()
                yield name, seconds, multiply_adds(part), moved.total

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def _peak(self) -> Iterator[list[float]]:
        """Peak bytes while inside: of the device's allocator, or of the process's memory."""
        found = [0.0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        yield found
        if self.device.type == "cuda":
            found[0] = float(torch.cuda.max_memory_allocated())
        else:
            found[0] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


class BytesMoved(TorchDispatchMode):
    """Adds up what every operation reads and writes, as if no cache kept anything; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if not function.is_view:
            leaves = tree_leaves((args, kwargs, out))
            self.total += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, torch.Tensor))
        return out


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


if __name__ == "__main__":
    main()
