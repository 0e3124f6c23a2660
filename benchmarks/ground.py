"""How long one sentence takes to be grounded in ten videos: words, rows from disk, proposals, reconstruction.

python benchmarks/ground.py --shape activitynet
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from corpora import make_engine, make_sentences, make_store
from shapes import SHAPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="activitynet")
    parser.add_argument("--videos", type=int, default=10, help="videos that each sentence is grounded in")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SHAPES[options.shape]
    sentences = make_sentences(shape, options.queries + 1)
    engine = make_engine(shape, sentences, options.device)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(shape, 10 * options.videos, Path(folder))
        rng = np.random.default_rng(0)
        taken = []
        for sentence in sentences:  # the first one warms up
            videos = [f"v{i}" for i in rng.choice(len(store), options.videos, replace=False)]
            start = perf_counter()
            engine.ground(store, [sentence] * options.videos, videos)
            taken.append(perf_counter() - start)
    low, middle, high = 1000 * np.percentile(taken[1:], [0, 50, 95])
    print(
        f"{options.shape}, {options.threads} threads, {options.device}, {options.queries} sentences, each in"
    )
    print(
        f"{options.videos} videos: {middle:.0f} ms at the median, {low:.0f} at best, {high:.0f} at the 95th percentile"
    )


if __name__ == "__main__":
    main()
