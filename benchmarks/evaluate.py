"""How long the evaluation of a test split takes: 3,720 queries and 1,334 videos in the shape of Charades-STA.

    python benchmarks/evaluate.py

Part 1 encodes the corpus, ranks all videos for all queries and grounds each query in its own video (VR and SVMR);
part 2 (`--corpus`) answers in the whole corpus as well, which grounds the ten best videos of each query (strict VCMR).
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

from dciml.metrics.video_retrieval import score_blocks, true_ranks
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
        begin = perf_counter()
        clips = engine.fused_clips(store, store.video_ids)
        _told("corpus encoded", begin)
        vectors = engine.embed_queries(sentences)
        column = {video_id: place for place, video_id in enumerate(store.video_ids)}
        ranks = np.concatenate(
            [
                true_ranks(scores, [column[owner] for owner in owners[chosen]])
                for chosen, scores in score_blocks(vectors, clips)
            ]
        )
        assert len(ranks) == options.queries
        _told("videos ranked", begin)
        engine.ground(store, sentences, owners)
        _told("each query grounded in its own video", begin)
        if options.corpus:
            queries = tuple(
                Query(f"q{i:05}", owner, sentence, ((0.0, 1.0),))
                for i, (owner, sentence) in enumerate(zip(owners, sentences, strict=True))
            )
            durations = {video_id: store.duration_seconds(video_id) for video_id in store.video_ids}
            begin = perf_counter()
            ask(engine, Task(store, queries, durations, len(queries)), engine.config.answer, progress=True)
            _told("the whole evaluation, ten videos grounded for each query", begin)


def _told(what: str, begin: float) -> None:
    print(f"  {perf_counter() - begin:7.1f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
