"""Queries per second, memory and operations of a training step, beside the plain path of the same losses.

    python benchmarks/train_step.py --shape activitynet --reference

All pathways are on and both branches take their turn. The fast path runs in float32, and in bf16 where the processor
has instructions for it. `--reference` also runs the plain path (tests/oracle) in float32. Each path has a process of
its own, and they take their steps in turn, so that the ratios are of one run and none works in memory that another
left. Inputs are random: only their shapes matter for time. Where the plain path would need more memory than is free,
all paths get as many videos as it can do with.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from lightning_fabric import Fabric
from machine import free_bytes, has_bf16, peak_bandwidth, peak_bytes, peak_gflops
from shapes import SHAPES, Shape, make_batch, make_config, make_model
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dciml.method import Batch, best_clip
from dciml.model_folder import build_step
from dciml.recipes.train import make_optimizers
from dciml.training import Step, training_step

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
from multiply_adds import multiply_adds
from plain_step import plain_training_step

TrainingStep = Callable[[Step, Batch, dict[str, torch.optim.Optimizer]], dict[str, float]]
FEW_VIDEOS = (2, 4)  # enough to see how much memory the plain path takes for each


PLAIN_SHARE = (
    0.65  # of the free memory, that the plain path may take; to count its operations takes half as much again
)
PLAIN = "plain"


@dataclass(frozen=True)
class Cost:
    """What a path takes: bytes at most, multiply–adds of a step, and what else is to be said."""

    peak: float
    operations: float
    remark: str


class Way:
    """One path, the plain one or the fast one in some precision, in a process of its own."""

    def __init__(self, name: str, shape: Shape, options: argparse.Namespace) -> None:
        self.name = "plain 32-true" if name == PLAIN else f"fast {name}"
        given = {"shape": options.shape, "videos": shape.videos}
        given |= {"threads": options.threads, "device": options.device, "work-on": name}
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self) -> tuple[float, float]:
        """Take one; seconds by the clock and of the processor."""
        wall, cpu = self._ask("step")
        return wall, cpu

    def end(self) -> Cost:
        """No more steps."""
        cost = Cost(*self._ask("end"))
        self._process.wait()
        return cost

    def _ask(self, what: str) -> list[Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(
                f"{self.name}: the process ended with {self._process.wait()}; too little memory?"
            )
        values: list[Any] = json.loads(answer)
        return values


def work_on(name: str, shape: Shape, device: torch.device) -> None:
    """The other side of `Way`."""
    plain = name == PLAIN
    bench, path = (
        Bench(shape, "32-true" if plain else name, device),
        plain_training_step if plain else training_step,
    )
    for line in sys.stdin:
        if line.strip() == "end":
            peak = peak_bytes(device)
            print(json.dumps([peak, bench.operations(path), bench.kernel_share(path)]), flush=True)
            return
        wall, cpu = perf_counter(), process_time()
        bench.run(path)
        print(json.dumps([perf_counter() - wall, process_time() - cpu]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="activitynet")
    parser.add_argument("--reference", action="store_true", help="also time the plain path")
    parser.add_argument("--videos", type=int, help="videos of the batch, with their share of the sentences")
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each path")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision",
        nargs="+",
        help="of the fast path: 32-true, bf16-mixed, 16-mixed; 32-true and, with instructions for it, bf16-mixed",
    )
    parser.add_argument("--work-on", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    shape = SHAPES[options.shape]
    if options.videos:
        shape = of_videos(shape, options.videos)
    if options.work_on:
        work_on(options.work_on, shape, device)
        return
    if options.reference:
        shape = what_fits(options, shape)
    names = options.precision or ["32-true"] + ["bf16-mixed"] * has_bf16(device)
    names += [PLAIN] * options.reference
    print(f"{options.shape}: {shape}\n{options.threads} threads, {device}")
    peak, bandwidth = peak_gflops(device), peak_bandwidth(device)
    print(f"here and now: a large matrix product {peak:.0f} GFLOP/s, a large copy {bandwidth:.1f} GB/s\n")
    ways = [Way(name, shape, options) for name in names]
    taken = times(ways, options.rounds)
    for way, (wall, cpu) in zip(ways, taken, strict=True):
        cost = way.end()
        print(
            f"{way.name:15} {shape.queries / wall:6.2f} queries/s   {wall:6.2f} s a step   {cpu:6.2f} s of processor"
            f"   {cost.operations / shape.queries / 1e9:5.2f} GMAC a query   "
            f"{2 * cost.operations / wall / 1e9:4.0f} GFLOP/s   peak {cost.peak / 2**30:.2f} GiB{cost.remark}"
        )
    if options.reference:
        for way, (wall, cpu) in zip(ways[:-1], taken, strict=False):
            in_time, in_processor = taken[-1][0] / wall, taken[-1][1] / cpu
            print(
                f"ratio of plain to {way.name}: {in_time:.1f} in time, {in_processor:.1f} in processor time"
            )
    print(
        "\nparts of the fast path, forward only; the floor is the larger of "
        "operations / peak and bytes / bandwidth:"
    )
    for name, seconds, operations, moved in Bench(shape, "32-true", device).parts():
        floor = max(2 * operations / (peak * 1e9), moved / (bandwidth * 1e9))
        print(
            f"  {name:22} {operations / shape.queries / 1e9:6.3f} GMAC a query   {moved / 2**30:6.2f} GiB in and out   "
            f"{1000 * seconds:7.0f} ms   floor {1000 * floor:6.0f} ms"
        )


def of_videos(shape: Shape, videos: int) -> Shape:
    """The same with so many videos and their share of the sentences."""
    return replace(shape, videos=videos, queries=max(1, round(shape.queries * videos / shape.videos)))


def what_fits(options: argparse.Namespace, shape: Shape) -> Shape:
    """As many videos as the plain path finds memory for, judged by two numbers of them."""
    fewest, few = FEW_VIDEOS
    if shape.videos <= few:
        return shape
    free, peaks = free_bytes(torch.device(options.device)), []
    for videos in FEW_VIDEOS:
        way = Way(PLAIN, of_videos(shape, videos), options)
        way.step()
        peaks.append(way.end().peak)
    each = (peaks[1] - peaks[0]) / (few - fewest)
    needed = peaks[1] + each * (shape.videos - few)
    if needed <= PLAIN_SHARE * free:
        return shape
    most = max(few, int(few + (PLAIN_SHARE * free - peaks[1]) / each))
    print(
        f"the plain path would need {needed / 2**30:.0f} GiB for {shape.videos} videos, and {free / 2**30:.0f} are "
        f"free: all paths get {most}"
    )
    return of_videos(shape, most)


def times(ways: list[Way], rounds: int) -> list[tuple[float, float]]:
    """Median seconds by the clock and of the processor of a step, all in turn; after one uncounted step of each."""
    taken: list[list[tuple[float, float]]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, own in zip(ways, taken, strict=True):
            seconds = way.step()
            if number:
                own.append(seconds)
    return [(median(wall for wall, _ in own), median(cpu for _, cpu in own)) for own in taken]


class Bench:
    """A model, a batch and two optimisers."""

    def __init__(self, shape: Shape, precision: str, device: torch.device) -> None:
        self.device = device
        accelerator = "cpu" if device.type == "cpu" else "cuda"
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
        config = make_config(shape)
        self.model = make_model(shape, config).to(device)
        self.batch = make_batch(shape).to(device)
        self.step = build_step(config, fabric, self.model, 0, torch.Generator().manual_seed(0))
        self.optimizers = {
            name: fabric.setup_optimizers(optimizer)
            for name, optimizer in make_optimizers(config, self.model).items()
        }

    def run(self, path: TrainingStep) -> None:
        path(self.step, self.batch, self.optimizers)
        self._wait()

    def operations(self, path: TrainingStep) -> float:
        """Multiply–adds of the matrix products of a step."""
        return multiply_adds(lambda: self.run(path))

    def kernel_share(self, path: TrainingStep) -> str:
        """On a GPU: for how much of a step its kernels run."""
        if self.device.type != "cuda":
            return ""
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            start = perf_counter()
            self.run(path)
            wall = perf_counter() - start
        on_device = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        return f"   kernels {sum(e.self_device_time_total for e in on_device) / 1e4 / wall:.0f} %"

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
                seconds = float("inf")
                for _ in range(4):  # the first one warms up
                    start = perf_counter()
                    part()
                    self._wait()
                    seconds = min(seconds, perf_counter() - start)
                with BytesMoved() as moved:
                    part()
                yield name, seconds, multiply_adds(part), moved.total

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


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


if __name__ == "__main__":
    main()
