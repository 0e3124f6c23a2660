"""How long the evaluation of a test split takes: 3,720 queries and 1,334 videos in the shape of Charades-STA.

    python benchmarks/evaluate.py --reference

Part 1 encodes the corpus, ranks all videos for all queries and grounds each query in its own video (VR and SVMR);
part 2 (`--corpus`) answers in the whole corpus as well, which grounds the ten best videos of each query (strict VCMR).
`--reference` also does part 1 as it is written in a paper, and finds the same: the whole matrix of clip scores at once,
and, for the first `--plain-queries` of them, one query after the other grounded without any shortcut.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from corpora import make_engine, make_sentences, make_store
from machine import peak_bytes
from plain_ground import largest_difference, plain_ground
from shapes import SHAPES

from dciml.config import AnswerConfig
from dciml.metrics import score_blocks, true_ranks
from dciml.recipes.answers import Task, ask
from dciml.types import Query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="charades")
    parser.add_argument("--queries", type=int, default=3720)
    parser.add_argument("--videos", type=int, default=1334)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--corpus", action="store_true", help="also strict VCMR")
    parser.add_argument("--reference", action="store_true", help="also the plain way")
    parser.add_argument("--plain-queries", type=int, default=64, help="that are grounded the plain way")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SHAPES[options.shape]
    sentences = make_sentences(shape, options.queries)
    engine = make_engine(shape, sentences, options.device)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(shape, options.videos, Path(folder))
        owners = [f"v{i * options.videos // options.queries}" for i in range(options.queries)]
        print(
            f"{options.shape}: {options.queries} queries, {options.videos} videos, {options.threads} threads"
        )
        clock = Clock(options.queries)
        clips = engine.fused_clips(store, store.video_ids)
        clock.told("corpus encoded")
        vectors = engine.embed_queries(sentences)
        clock.told("queries encoded")
        column = {video_id: place for place, video_id in enumerate(store.video_ids)}
        ranks = np.concatenate(
            [
                true_ranks(scores, [column[owner] for owner in owners[chosen]])
                for chosen, scores in score_blocks(vectors, clips)
            ]
        )
        assert len(ranks) == options.queries
        clock.told("videos ranked")
        found = engine.ground(store, sentences, owners)
        clock.told("each query grounded in its own video")
        print(
            f"  {clock.total:7.1f} s  all of it; peak {peak_bytes(engine.device) / 2**30:.2f} GiB", flush=True
        )
        if options.reference:
            clock = Clock(options.queries)
            whole = np.einsum("qd,vcd->qvc", vectors, clips).max(axis=2)
            assert np.array_equal(true_ranks(whole, [column[owner] for owner in owners]), ranks)
            clock.told("plain: videos ranked by the whole matrix, with the same ranks")
            few = slice(0, options.plain_queries)
            clock = Clock(len(sentences[few]))
            scores = [
                plain_ground(engine, store, [sentence], [owner])
                for sentence, owner in zip(sentences[few], owners[few], strict=True)
            ]
            off = largest_difference(found.scores[few], np.concatenate(scores))
            clock.told(f"plain: {len(scores)} queries grounded; scores differ by {off:.0e} nats at most")
        if options.corpus:
            queries = tuple(
                Query(f"q{i:05}", owner, sentence, ((0.0, 1.0),))
                for i, (owner, sentence) in enumerate(zip(owners, sentences, strict=True))
            )
            durations = {video_id: store.duration_seconds(video_id) for video_id in store.video_ids}
            clock = Clock(options.queries)
            ask(engine, Task(store, queries, durations, len(queries)), AnswerConfig(), progress=True)
            clock.told("the whole evaluation, ten videos grounded for each query")


class Clock:
    """Tells how long each part took."""

    def __init__(self, queries: int) -> None:
        self._queries, self._last, self.total = queries, perf_counter(), 0.0

    def told(self, what: str) -> None:
        """The part that ends now."""
        seconds = perf_counter() - self._last
        print(f"  {seconds:7.1f} s  {self._queries / seconds:8.1f} queries/s  {what}", flush=True)
        self.total, self._last = self.total + seconds, perf_counter()


if __name__ == "__main__":
    main()
