"""How long one sentence takes to be grounded in ten videos: words, rows from disk, proposals, reconstruction.

python benchmarks/ground.py --shape activitynet --reference

Twice each: in videos that no sentence was looked for in before, and in videos whose own part of the work is kept
(`SeenVideos`). The model is untrained; the wider its proposals, the more positions they let through, so `--widths` sets
them to what a trained model gives. `--reference` also grounds without any shortcut, with the same scores.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from corpora import make_engine, make_sentences, make_store
from machine import peak_bytes, peak_gflops, write_figures
from plain_ground import largest_difference, plain_ground
from shapes import SHAPES
from train_step import multiply_adds

from dciml.features import FeatureStore
from dciml.method import collate_videos
from dciml.search import DualEngine
from dciml.threads import set_num_shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="activitynet")
    parser.add_argument("--videos", type=int, default=10, help="videos that each sentence is grounded in")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--widths", type=float, help="width of all proposals, in unit time; untrained: 0.45 on average"
    )
    parser.add_argument("--reference", action="store_true", help="also ground without any shortcut")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SHAPES[options.shape]
    sentences = make_sentences(shape, options.queries + 1)
    engine = make_engine(shape, sentences, options.device)
    if options.widths is not None:
        set_widths(engine, options.widths)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(shape, 10 * options.videos, Path(folder))
        rng = np.random.default_rng(0)
        taken, operations, plain = [], [], []
        for sentence in sentences:  # the first one warms up
            videos = [f"v{i}" for i in rng.choice(len(store), options.videos, replace=False)]
            forgetful = replace(engine)
            times, counts = [], []
            for _ in ("new", "seen"):
                start = perf_counter()
                found = forgetful.ground(store, [sentence] * options.videos, videos)
                times.append(perf_counter() - start)
            for counted in (replace(engine), forgetful):
                work = partial(counted.ground, store, [sentence] * options.videos, videos)
                set_num_shares(1)  # the counter sees its own thread only
                counts.append(multiply_adds(work) / 1e9)
                set_num_shares(None)
            taken.append(times)
            operations.append(counts)
            if options.reference:
                start = perf_counter()
                scores = plain_ground(engine, store, [sentence] * options.videos, videos)
                plain.append((perf_counter() - start, largest_difference(found.scores, scores)))
        shares = parts_of(engine, store, sentences[-1], videos)
    peak = peak_gflops(torch.device(options.device))
    print(
        f"{options.shape}, {options.threads} threads, {options.device}, {options.queries} sentences, "
        f"each in {options.videos} videos; a large matrix product reaches {peak:.0f} GFLOP/s here and now"
    )
    figures: dict[str, Any] = {"shape": options.shape, "queries": options.queries, "videos": options.videos}
    for column, name in enumerate(("not seen before", "seen before")):
        low, middle, high = 1000 * np.percentile([row[column] for row in taken[1:]], [0, 50, 95])
        count = np.mean([row[column] for row in operations[1:]])
        figures[name] = {"median_ms": middle, "p95_ms": high, "g_multiply_adds": float(count)}
        print(
            f"  videos {name:16} {middle:4.0f} ms at the median, {low:.0f} at best, {high:.0f} at the 95th percentile; "
            f"{count:.1f} G multiply-adds, at that rate {2000 * count / peak:.0f} ms"
        )
    if plain:
        middle = 1000 * float(np.median([seconds for seconds, _ in plain[1:]]))
        ratio = middle / 1000 / float(np.median([row[0] for row in taken[1:]]))
        figures["plain"] = {"median_ms": middle, "times": ratio}
        print(
            f"  without any shortcut     {middle:4.0f} ms at the median, {ratio:.1f} times as long; scores differ by "
            f"{max(difference for _, difference in plain):.0e} nats at most"
        )
    print("  " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) + " of one thread's time")
    peak_gib = peak_bytes(torch.device(options.device)) / 2**30
    print(f"  peak {peak_gib:.2f} GiB")
    write_figures(options.json, figures | {"peak_gib": peak_gib})


@torch.inference_mode()
def parts_of(engine: DualEngine, store: FeatureStore, sentence: str, videos: list[str]) -> dict[str, float]:
    """The share of each part of grounding in new videos, computed by one thread."""
    threads, grounding = torch.get_num_threads(), engine.dual.grounding
    torch.set_num_threads(1)
    places = torch.zeros(len(videos), dtype=torch.int64)
    at = [perf_counter()]
    queries = engine._queries([sentence]).to(engine.device).at(places.to(engine.device))
    at.append(perf_counter())
    most = engine.sizes.max_frames
    rows = collate_videos(store, videos, num_clips=0, max_frames=most).to(engine.device)
    at.append(perf_counter())
    watched, owner = grounding.watch(rows), torch.arange(len(videos), device=engine.device)
    at.append(perf_counter())
    proposals = grounding.propose(watched, queries, owner)
    at.append(perf_counter())
    grounding.nll_of_proposals(watched.sampled, queries, owner, grounding.log_weights(proposals))
    at.append(perf_counter())
    torch.set_num_threads(threads)
    names = ("words", "rows read", "videos", "proposals", "reconstruction")
    return {
        name: (after - before) / (at[-1] - at[0])
        for name, (before, after) in zip(names, pairwise(at), strict=True)
    }


def set_widths(engine: DualEngine, width: float) -> None:
    """Let the model give all proposals this width, wherever it puts them."""
    head = engine.dual.grounding.span_head
    half = len(head.bias) // 2
    with torch.no_grad():
        head.weight[half:] = 0
        head.bias[half:] = float(np.log(width / (1 - width)))


if __name__ == "__main__":
    main()
