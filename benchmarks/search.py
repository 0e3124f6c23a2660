"""How fast the first stage of search is, and how many of the best videos it finds.

    python benchmarks/search.py first --videos 20000
    python benchmarks/search.py first --videos 1000000 --dtype float16 --folder /data/bench

makes an index of synthetic videos (benchmarks/made_vectors.py; kept in the folder and used again), searches it with
queries whose true best 100 videos were found by looking at every vector while the index was made, and prints
recall@100 beside the time of one query on one thread, the memory and the load of the machine.

    python benchmarks/search.py whole --model MODEL --data DATA --videos 20000

measures the whole answer of a trained model over an index of so many videos, see benchmarks/whole_answer.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from made_vectors import BLOCK, CLIPS, WIDTH, MadeVectors
from numpy.typing import NDArray

from dciml.files import atomic_path
from dciml.index import ClipIndex, IndexOptions

NUM_BEST = 100
TARGET_VIDEOS = 10_000  # the queries are about clips of the first so many videos
ADD_BLOCKS = 24  # blocks of videos a commit
FloatArray = NDArray[np.float32]


class Truth:
    """The best NUM_BEST videos of each query, found by comparing with everything, block by block."""

    def __init__(self, queries: FloatArray) -> None:
        self.queries = queries
        self.scores = np.full((len(queries), NUM_BEST), -np.inf, dtype=np.float32)
        self.videos = np.full((len(queries), NUM_BEST), -1, dtype=np.int64)

    def see(self, vectors: FloatArray, first: int) -> None:
        """Take in a block of videos (n, S, D), numbered from `first`."""
        best = (
            (self.queries @ vectors.reshape(-1, WIDTH).T)
            .reshape(len(self.queries), len(vectors), -1)
            .max(axis=2)
        )
        numbers = np.broadcast_to(np.arange(first, first + len(vectors)), best.shape)
        scores = np.concatenate([self.scores, best], axis=1)
        videos = np.concatenate([self.videos, numbers], axis=1)
        order = np.argsort(-scores, axis=1)[:, :NUM_BEST]
        self.scores, self.videos = np.take_along_axis(scores, order, 1), np.take_along_axis(videos, order, 1)

    @classmethod
    def read(cls, file: Path) -> Truth:
        """What `write` kept."""
        with np.load(file) as kept:
            truth = cls(kept["queries"])
            truth.scores, truth.videos = kept["scores"], kept["videos"]
        return truth

    def write(self, file: Path) -> None:
        """Keep it beside the index, atomically."""
        with atomic_path(file) as temporary, temporary.open("wb") as handle:
            np.savez(handle, queries=self.queries, scores=self.scores, videos=self.videos)


def build(folder: Path, num_videos: int, num_queries: int, options: IndexOptions) -> None:
    """Make the index in portions, and the truth beside it; goes on where it was interrupted."""
    made, file = MadeVectors(), folder / "truth.npz"
    if file.exists():
        truth, index = Truth.read(file), ClipIndex.open(folder / "index")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        truth = Truth(made.queries(num_queries, min(num_videos, TARGET_VIDEOS)))
        index = ClipIndex.create(
            folder / "index",
            num_clips=CLIPS,
            width=WIDTH,
            fingerprint="made",
            model_folder=folder,
            store_path=folder,
            options=options,
        )
    start, already = time.perf_counter(), len(index)
    for first in range(already, num_videos, ADD_BLOCKS * BLOCK):
        count = min(ADD_BLOCKS * BLOCK, num_videos - first)
        vectors = np.empty((count, CLIPS, WIDTH), dtype=np.float32)
        for offset in range(0, count, BLOCK):
            block = made.block((first + offset) // BLOCK)[: count - offset]
            vectors[offset : offset + len(block)] = block
            truth.see(block, first + offset)
        index.add([f"v{n}" for n in range(first, first + count)], vectors, np.full(count, 60.0))
        truth.write(file)
        print(f"{first + count:,} videos, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def measure_first(folder: Path) -> dict[str, object]:
    """Open the index afresh and ask the queries one by one."""
    truth = Truth.read(folder / "truth.npz")
    start = time.perf_counter()
    index = ClipIndex.open(folder / "index")
    opening, opened_mib = time.perf_counter() - start, _memory("VmRSS")
    index.match(truth.queries[:1], NUM_BEST)  # whatever is done once
    seconds, busy, found = [], [], []
    for query, wanted in zip(truth.queries, truth.videos, strict=True):
        wall, thread = time.perf_counter(), time.thread_time()
        matches = index.match(query[None], NUM_BEST)
        seconds.append(time.perf_counter() - wall)
        busy.append(time.thread_time() - thread)
        ids = {index.video_ids[place] for place in matches.places[0]}
        found.append(sum(f"v{number}" in ids for number in wanted) / NUM_BEST)
    return {
        "videos": len(index),
        "vectors": len(index) * CLIPS,
        "recall_at_100": round(float(np.mean(found)), 4),
        "worst_recall": min(found),
        "queries": len(found),
        "median_ms": round(1e3 * float(np.median(seconds)), 1),
        "p90_ms": round(1e3 * float(np.quantile(seconds, 0.9)), 1),
        "median_processor_ms": round(1e3 * float(np.median(busy)), 1),
        "open_seconds": round(opening, 1),
        "resident_mib_when_opened": opened_mib,
        "resident_mib": _memory("VmRSS"),
        "largest_resident_mib": _memory("VmHWM"),
        "disk_mib": sum(file.stat().st_size for file in (folder / "index").iterdir()) >> 20,
        "load_average": os.getloadavg()[0],
    }


def _memory(name: str) -> int:
    """A line of /proc/self/status, in MiB; elsewhere the largest resident size."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Parse the arguments and print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("first")
    first.add_argument("--videos", type=int, default=20_000)
    first.add_argument("--queries", type=int, default=100)
    first.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    first.add_argument("--code-bytes", type=int, default=IndexOptions.code_bytes)
    first.add_argument("--exact", action="store_true", help="look at every vector")
    first.add_argument("--build", action="store_true", help="only make the index, or go on making it")
    first.add_argument("--folder", type=Path, default=Path("bench-search"))
    whole = commands.add_parser("whole")
    whole.add_argument("--model", type=Path, required=True)
    whole.add_argument("--data", type=Path, required=True, help="data folder that fits the model")
    whole.add_argument("--split", default="test", help="its sentences are asked")
    whole.add_argument("--videos", type=int, default=20_000)
    whole.add_argument("--queries", type=int, default=100)
    whole.add_argument("--threads", type=int, default=2)
    whole.add_argument("--device", default="cpu")
    whole.add_argument("--folder", type=Path, default=Path("bench-search"))
    arguments = parser.parse_args()
    if arguments.command == "whole":
        from whole_answer import measure_whole

        print(json.dumps(measure_whole(arguments), indent=2))
        return
    folder = arguments.folder / f"{arguments.videos}-{arguments.dtype}-{arguments.code_bytes}"
    if arguments.exact:
        folder = folder.with_name(f"{folder.name}-exact")
    limit = arguments.videos if arguments.exact else IndexOptions.exact_videos
    options = IndexOptions(dtype=arguments.dtype, code_bytes=arguments.code_bytes, exact_videos=limit)
    if arguments.build:
        build(folder, arguments.videos, arguments.queries, options)
        return
    # The memory of searching is measured in a process that has built nothing.
    subprocess.run([sys.executable, *sys.argv, "--build"], check=True)
    print(json.dumps(measure_first(folder), indent=2))


if __name__ == "__main__":
    main()
