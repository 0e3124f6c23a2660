"""Queries per second, memory and operations of a training step, beside the plain path of the same losses.

    python benchmarks/train_step.py --shape activitynet --reference

All pathways are on and both branches take their turn. The fast path runs in float32, and in bf16 where the processor
has instructions for it. `--reference` also runs the plain path (tests/oracle) in float32. Each path has a process of
its own, and they take their steps in turn, so that the ratios are of one run and none works in memory that another
left. Inputs are random: only their shapes matter for time. Where the plain path would need more memory than is free,
all paths get as many videos as it can do with.

`--compile` also times the fast path with both branches compiled (torch.compile), and with CUDA graphs on top
(mode="reduce-overhead"), in each precision; the first step of each takes minutes. A way that torch cannot compile is
named with its error, and the others go on. What is achieved stands beside what a large matrix product of the same
precision and a large copy reach here and now; bytes are what every operation reads and writes, as if no cache kept
anything and nothing were fused.
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
from machine import free_bytes, has_bf16, peak_bandwidth, peak_bytes, peak_gflops, write_figures
from shapes import SHAPES, Shape, make_batch, make_config, make_model
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dciml.method import Batch, best_clip
from dciml.model_folder import batch_sizes, build_step, has_fixed_shapes
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
COMPILED, GRAPHS = "compiled", "graphs"  # after the precision, as in `bf16-mixed+graphs`
MODES = {COMPILED: "default", GRAPHS: "reduce-overhead"}


@dataclass(frozen=True)
class Cost:
    """What a path takes: bytes held at most, multiply–adds and bytes moved in a step, and on a GPU the share of the
    step for which kernels run.

    A compiled path makes the same sums as the plain call of the same code, which is what is counted.
    """

    peak: float
    operations: float
    moved: float
    kernels: float | None


class Way:
    """One path, the plain one or the fast one in some precision, in a process of its own."""

    def __init__(self, name: str, shape: Shape, options: argparse.Namespace) -> None:
        precision, _, form = name.partition("+")
        self.precision = "32-true" if name == PLAIN else precision
        self.name = "plain 32-true" if name == PLAIN else f"fast {precision} {form}".strip()
        given = {"shape": options.shape, "videos": shape.videos, "backend": options.backend}
        given |= {"threads": options.threads, "device": options.device, "work-on": name}
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        words += ["--fixed-shapes"] * options.fixed_shapes
        self._process = subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self) -> tuple[float, float]:
        """Take one; seconds by the clock and of the processor."""
        wall, cpu = self._ask("step")
        return wall, cpu

    def begin(self) -> str | None:
        """Take the first step, which warms up and compiles: why it fails, or None."""
        (why,) = self._ask("begin")
        return why if why is None else str(why)

    def end(self) -> Cost:
        """No more steps."""
        cost = Cost(*self._ask("end"))
        self._process.wait()
        return cost

    def end_failed(self) -> None:
        """End the process of a way that does not work."""
        self._process.kill()
        self._process.wait()

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


def work_on(
    name: str, shape: Shape, device: torch.device, backend: str, fixed_shapes: bool | None = None
) -> None:
    """The other side of `Way`."""
    plain, (precision, _, form) = name == PLAIN, name.partition("+")
    path = plain_training_step if plain else training_step
    bench = Bench(shape, "32-true" if plain else precision, device, fixed_shapes)
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # where graphs break is no figure
    if form:
        cost = bench.operations(path), bench.moved(path)
        bench.compile(MODES[form], backend)
    for line in sys.stdin:
        if line.strip() == "begin":
            try:
                bench.run(path)
                print(json.dumps([None]), flush=True)
            except Exception as error:  # of the compiler, of whatever kind
                if not form:
                    raise
                print(json.dumps([f"{type(error).__name__}: {error}".splitlines()[0][:200]]), flush=True)
        elif line.strip() == "end":
            peak, kernels = peak_bytes(device), bench.kernel_share(path)
            if not form:
                cost = bench.operations(path), bench.moved(path)
            print(json.dumps([peak, *cost, kernels]), flush=True)
            return
        else:
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
    parser.add_argument(
        "--compile",
        nargs="*",
        choices=MODES,
        help="also compiled, and compiled with CUDA graphs, or one of these",
    )
    parser.add_argument("--backend", default="inductor", help="of torch.compile; `eager` only traces")
    parser.add_argument(
        "--fixed-shapes", action="store_true", help="keep padding, as training on a GPU does, on a CPU too"
    )
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--work-on", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    shape = SHAPES[options.shape]
    if options.videos:
        shape = of_videos(shape, options.videos)
    if options.work_on:
        work_on(options.work_on, shape, device, options.backend, options.fixed_shapes or None)
        return
    if options.reference:
        shape = what_fits(options, shape)
    names = options.precision or ["32-true"] + ["bf16-mixed"] * has_bf16(device)
    compiled = [] if options.compile is None else options.compile or list(MODES)
    groups = [
        names + [PLAIN] * options.reference,
        *([f"{name}+{form}"] for name in names for form in compiled),
    ]
    print(f"{options.shape}: {shape}\n{options.threads} threads, {device}")
    peaks = Peaks.of(device)
    print(
        f"here and now: a large matrix product {peaks.gflops['32-true']:.0f} GFLOP/s, in bf16 "
        f"{peaks.gflops['bf16-mixed']:.0f}, a large copy {peaks.bandwidth:.1f} GB/s\n"
    )
    figures: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for group in groups:
        figures += measure(group, shape, options, peaks, failed)
        compare_with_plain(figures)
        write_figures(  # after each group: to compile may take longer than there is time
            options.json,
            {
                "shape": options.shape,
                "videos": shape.videos,
                "queries": shape.queries,
                "peak_gflops": peaks.gflops,
                "peak_gb_per_second": peaks.bandwidth,
                "paths": figures,
                "failed": failed,
            },
        )
    for row in figures:
        if "times_plain" in row:
            print(
                f"ratio of plain to {row['path']}: {row['times_plain']:.1f} in time, "
                f"{row['times_plain_in_processor']:.1f} in processor time"
            )
    print_parts(shape, device, peaks)


def measure(
    names: list[str], shape: Shape, options: argparse.Namespace, peaks: Peaks, failed: dict[str, str]
) -> list[dict[str, Any]]:
    """A row each way that works, printed too; those that do not are added to `failed`."""
    ways, bad = ready([Way(name, shape, options) for name in names])
    failed |= bad
    for name, why in bad.items():
        print(f"{name:24} failed: {why}", flush=True)
    taken = times(ways, options.rounds)
    costs = [way.end() for way in ways]
    rows = [
        figures_of(way, shape, seconds, cost, peaks)
        for way, seconds, cost in zip(ways, taken, costs, strict=True)
    ]
    for row in rows:
        print_way(row)
    return rows


def compare_with_plain(figures: list[dict[str, Any]]) -> None:
    """Note how many times as long the plain path takes, where it was timed."""
    plain = next((row for row in figures if row["path"].startswith(PLAIN)), None)
    for row in figures:
        if plain is not None and row is not plain:
            row["times_plain"] = plain["seconds"] / row["seconds"]
            row["times_plain_in_processor"] = plain["processor_seconds"] / row["processor_seconds"]


@dataclass(frozen=True)
class Peaks:
    """What the machine reaches at best: GFLOP/s of a matrix product in each precision, GB/s of a copy."""

    gflops: dict[str, float]
    bandwidth: float

    @classmethod
    def of(cls, device: torch.device) -> Peaks:
        """Measure them."""
        types = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        fast = types if device.type == "cuda" else {k: v for k, v in types.items() if k != "16-mixed"}
        return cls({name: peak_gflops(device, dtype=t) for name, t in fast.items()}, peak_bandwidth(device))


def ready(ways: list[Way]) -> tuple[list[Way], dict[str, str]]:
    """The ways that work, after their first step, and why the others do not."""
    good, failed = [], {}
    for way in ways:
        why = way.begin()
        if why is None:
            good.append(way)
        else:
            way.end_failed()
            failed[way.name] = why
    return good, failed


def figures_of(
    way: Way, shape: Shape, seconds: tuple[float, float], cost: Cost, peaks: Peaks
) -> dict[str, Any]:
    """A row: what is achieved, and its share of what the machine reaches."""
    wall, processor = seconds
    gflops, bandwidth = 2 * cost.operations / wall / 1e9, cost.moved / wall / 1e9
    return {
        "path": way.name,
        "queries_per_second": shape.queries / wall,
        "seconds": wall,
        "processor_seconds": processor,
        "gmac_per_query": cost.operations / shape.queries / 1e9,
        "gflops": gflops,
        "share_of_peak_gflops": gflops / peaks.gflops.get(way.precision, peaks.gflops["32-true"]),
        "gb_per_second": bandwidth,
        "share_of_peak_bandwidth": bandwidth / peaks.bandwidth,
        "kernel_share": cost.kernels,
        "peak_gib": cost.peak / 2**30,
    }


def print_way(row: dict[str, Any]) -> None:
    """One line of the table."""
    kernels = "" if row["kernel_share"] is None else f"   kernels {row['kernel_share']:.0%}"
    print(
        f"{row['path']:24} {row['queries_per_second']:6.2f} queries/s   {row['seconds']:6.2f} s a step   "
        f"{row['processor_seconds']:6.2f} s of processor   {row['gmac_per_query']:5.2f} GMAC a query   "
        f"{row['gflops']:4.0f} GFLOP/s ({row['share_of_peak_gflops']:.0%} of the peak)   "
        f"{row['gb_per_second']:4.0f} GB/s ({row['share_of_peak_bandwidth']:.0%})   "
        f"peak {row['peak_gib']:.2f} GiB{kernels}"
    )


def print_parts(shape: Shape, device: torch.device, peaks: Peaks) -> None:
    """The parts of the fast path in float32."""
    print(
        "\nparts of the fast path, forward only; the floor is the larger of "
        "operations / peak and bytes / bandwidth:"
    )
    for name, seconds, operations, moved in Bench(shape, "32-true", device).parts():
        floor = max(2 * operations / (peaks.gflops["32-true"] * 1e9), moved / (peaks.bandwidth * 1e9))
        print(
            f"  {name:22} {operations / shape.queries / 1e9:6.3f} GMAC a query   {moved / 2**30:6.2f} GiB in and out   "
            f"{1000 * seconds:7.1f} ms   floor {1000 * floor:6.1f} ms"
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
    """Median seconds by the clock and of the processor of a step, all in turn; the ways are warm."""
    taken: list[list[tuple[float, float]]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, own in zip(ways, taken, strict=True):
            own.append(way.step())
    return [(median(wall for wall, _ in own), median(cpu for _, cpu in own)) for own in taken]


class Bench:
    """A model, a batch and two optimisers."""

    def __init__(
        self, shape: Shape, precision: str, device: torch.device, fixed_shapes: bool | None = None
    ) -> None:
        self.device = device
        accelerator = "cpu" if device.type == "cpu" else "cuda"
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
        config = make_config(shape, fixed_shapes=fixed_shapes)
        self.model = make_model(shape, config).to(device)
        self.batch = make_batch(shape).to(device)
        fixed = has_fixed_shapes(config, device)  # as training does; the plain path reads no copies
        self.in_buckets = self.batch.in_buckets(batch_sizes(config)) if fixed else self.batch
        self.step = build_step(config, fabric, self.model, 0, torch.Generator().manual_seed(0))
        self.optimizers = {
            name: fabric.setup_optimizers(optimizer)
            for name, optimizer in make_optimizers(config, self.model).items()
        }

    def run(self, path: TrainingStep) -> None:
        path(self.step, self.in_buckets if path is training_step else self.batch, self.optimizers)
        self._wait()

    def operations(self, path: TrainingStep) -> float:
        """Multiply–adds of the matrix products of a step."""
        return multiply_adds(lambda: self.run(path))

    def moved(self, path: TrainingStep) -> float:
        """Bytes that the operations of a step read and write."""
        with BytesMoved() as moved:
            self.run(path)
        return moved.total

    def compile(self, mode: str, backend: str) -> None:
        """Compile what the two branches are asked for in a step."""
        how: dict[str, Any] = {"backend": backend} if backend != "inductor" else {"mode": mode}
        for branch, methods in (
            (self.model.retrieval, ("forward",)),
            (self.model.grounding, ("forward", "select")),
        ):
            for name in methods:
                setattr(branch, name, torch.compile(getattr(branch, name), **how))

    def kernel_share(self, path: TrainingStep) -> float | None:
        """On a GPU: for how much of a step its kernels run."""
        if self.device.type != "cuda":
            return None
        try:
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                start = perf_counter()
                self.run(path)
                wall = perf_counter() - start
        except RuntimeError as error:  # a machine that lets no one profile
            print(f"no profile: {error}", file=sys.stderr)
            return None
        on_device = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        return sum(e.self_device_time_total for e in on_device) / 1e6 / wall

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
