"""The whole answer, timed: encode the sentence, retrieve from many videos, ground in the best, compose the hits.

    python benchmarks/whole_answer.py --data DATA --model MODEL --videos 2000 --device cuda --config CONFIG

The corpus is that of a data folder, repeated with a little noise on its rows until it has the videos asked for, and
encoded by the model: real vectors, and a store from which grounding reads. It is kept in the folder and used again.
Where the model is not there yet and `--config` names settings, it is trained first, shortly: time is all that counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write_figures

from dciml.datasets import DataFolder
from dciml.features import FeatureStore, FeatureStoreWriter
from dciml.model_folder import load_model, open_searcher
from dciml.recipes.index import build_index

NOISE = 0.1  # of the rows' own deviation


def measure_whole(arguments: argparse.Namespace) -> dict[str, object]:
    """Build what is not there yet, ask the sentences one by one, and return medians in milliseconds."""
    torch.set_num_threads(arguments.threads)
    data = DataFolder.open(arguments.data)
    model = load_model(arguments.model, arguments.device)
    folder = arguments.folder / f"whole-{arguments.data.name}-{arguments.videos}"
    if not (folder / "index").exists():
        shutil.rmtree(folder, ignore_errors=True)
        repeat_store(data.store, folder / "features", arguments.videos)
        build_index(model, folder / "features", folder / "index")
    searcher = open_searcher(folder / "index", arguments.device, model_folder=arguments.model)
    sentences = [query.sentence for query in data.queries(arguments.split)][: arguments.queries]
    for sentence in sentences[:3]:  # whatever is done once
        searcher.answer(sentence)
    parts: dict[str, list[float]] = defaultdict(list)
    index = searcher.index
    timed(type(searcher.engine), "embed_queries", parts["encode"])
    timed(type(searcher.engine), "ground", parts["ground"])
    timed(type(index), "match", parts["retrieve"])
    whole = []
    for sentence in sentences:
        start = time.perf_counter()
        searcher.answer(sentence)
        whole.append(time.perf_counter() - start)
    return {
        "videos": len(index),
        "width": index.width,
        "grounded_videos": searcher.config.ground_videos,
        "queries": len(whole),
        "threads": arguments.threads,
        "median_ms": round(1e3 * float(np.median(whole)), 1),
        "p90_ms": round(1e3 * float(np.quantile(whole, 0.9)), 1),
        "median_ms_of": {name: round(1e3 * float(np.median(times)), 1) for name, times in parts.items()},
        "load_average": os.getloadavg()[0],
    }


def timed(owner: Any, name: str, seconds: list[float]) -> None:
    """Let a method of a class write down how long each call takes."""
    method: Callable[..., Any] = getattr(owner, name)

    def wrapper(*values: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = method(*values, **named)
        seconds.append(time.perf_counter() - start)
        return result

    setattr(owner, name, wrapper)


def repeat_store(store: FeatureStore, out: Path, num_videos: int) -> None:
    """A store of `num_videos` videos: those of `store`, then copies with noise."""
    generator = np.random.default_rng(0)
    with FeatureStoreWriter(out, store.manifest, commit_every=1000) as writer:
        for number in range(num_videos):
            copy, place = divmod(number, len(store))
            video_id = store.video_ids[place]
            rows = store.rows(video_id).astype(np.float32)
            if copy:
                rows = rows + NOISE * rows.std() * generator.standard_normal(rows.shape, dtype=np.float32)
            writer.append(f"{video_id}~{copy}" if copy else video_id, rows, store.duration_seconds(video_id))


def train_shortly(arguments: argparse.Namespace) -> None:
    """Two epochs of some settings on the data, into the folder of the model."""
    from dciml.config import load_config
    from dciml.recipes.train import train

    accelerator = "cpu" if arguments.device == "cpu" else "cuda"
    given = [f"data.folder={arguments.data}", "training.epochs=2", f"training.accelerator={accelerator}"]
    train(load_config(arguments.config, [*given, *arguments.settings]), arguments.model, quiet=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of a measurement."""
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data folder that fits the model")
    parser.add_argument("--split", default="test", help="its sentences are asked")
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("bench-search"))


def main() -> None:
    """Read the arguments, train where there is no model, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--config", type=Path, help="settings of a model that is not there yet")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a setting, key=value")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    if arguments.config is not None and not (arguments.model / "run.json").exists():
        train_shortly(arguments)
    figures = measure_whole(arguments)
    print(json.dumps(figures, indent=2))
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
