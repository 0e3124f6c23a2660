"""Compare answer settings on the held-out training videos of a run (their moments are read here, and only here).

    python benchmarks/choose_answer.py runs/demo --data demo-out/data --queries 300

Which settings rank moments best is a choice that training cannot make (docs/decisions/0009). Videos that training
never saw, cut from the training split, are the corpus; the test split is not touched. Of several models, of different
seeds, each is asked of the videos that it held out, and the figures are means over them.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dciml.config import AnswerConfig, load_config
from dciml.datasets import DataFolder, split_off_validation
from dciml.metrics import FloatArray, moment_recalls, strict
from dciml.model_folder import load_model
from dciml.recipes.answers import Task, index_corpus
from dciml.search import Searcher
from dciml.types import Query, SearchHit

SPAN_SETTINGS: dict[str, list[Any]] = {
    "contrast_floor": [0.0, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8],
    "candidates": ["windows", "proposals", "both"],
    "contrast_weight": [0.0, 1.0],
    "reconstruction_weight": [0.0, 0.1, 1.0],
}
LIST_SETTINGS: dict[str, list[Any]] = {
    "video_weight": [0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0],
    "span_reference": ["best", "softmax", "absolute"],
    "nms_iou": [None, 0.5],
}


def held_out_task(data: DataFolder, fraction: float, seed: int, num_queries: int) -> Task:
    """The held-out videos of a run as a corpus, with their queries."""
    everything = data.queries("train")
    _, held_out = split_off_validation(data.pairs("train"), fraction, seed)
    queries = tuple(q for q in everything if q.video_id in set(held_out) and q.moments)[:num_queries]
    durations = {video_id: data.store.duration_seconds(video_id) for video_id in held_out}
    return Task(data.store, queries, durations, len(queries))


def grid(base: AnswerConfig, settings: dict[str, list[Any]]) -> list[AnswerConfig]:
    """Every combination; those that score nothing (both weights 0) are left out."""
    made = [
        base.model_copy(update=dict(zip(settings, values, strict=True)))
        for values in itertools.product(*settings.values())
    ]
    return [c for c in made if c.contrast_weight or c.reconstruction_weight]


def held_out(model: Path, data: DataFolder, num_queries: int, index: Path) -> tuple[Searcher, Task]:
    """A searcher in the videos that a run held out, and their queries."""
    config, engine = load_config(model / "config.yaml"), load_model(model, calibrated=False).engine
    task = held_out_task(data, config.data.validation_fraction, config.seed, num_queries)
    built = index_corpus(engine, task, task.fused_clips(engine), index)
    return Searcher(engine, built, task.store, config.answer), task


def moments_in_own_videos(
    searcher: Searcher, task: Task, configs: list[AnswerConfig]
) -> list[dict[str, float]]:
    """SVMR of each setting."""
    own = [in_own_video(searcher, query, configs) for query in task.queries]
    return [
        moment_recalls(task.queries, {q.query_id: own[i][place] for i, q in enumerate(task.queries)}).means()
        for place in range(len(configs))
    ]


def moments_in_corpus(searcher: Searcher, task: Task, configs: list[AnswerConfig]) -> list[dict[str, float]]:
    """Strict VCMR of each setting."""
    answers = searcher.search_variants([query.sentence for query in task.queries], configs, 100)
    ids = [query.query_id for query in task.queries]
    return [strict(task.queries, dict(zip(ids, hits, strict=True))).means() for hits in answers]


def mean_rows(
    found: list[list[dict[str, float]]], names: list[str], configs: list[AnswerConfig]
) -> list[tuple[list[float], AnswerConfig]]:
    """Of each setting the figures of these names, mean over models."""
    return [
        ([float(np.mean([of_model[place][name] for of_model in found])) for name in names], config)
        for place, config in enumerate(configs)
    ]


def in_own_video(searcher: Searcher, query: Query, configs: list[AnswerConfig]) -> list[FloatArray]:
    """The spans that each setting finds in the query's own video, best first, in seconds."""
    found = searcher.search_variants([query.sentence], configs, within=[query.video_id])
    return [spans_of(hits[0]) for hits in found]


def spans_of(hits: list[SearchHit]) -> FloatArray:
    """(n, 2) seconds."""
    return np.array([(hit.start_seconds, hit.end_seconds) for hit in hits]).reshape(-1, 2)


def show(
    rows: list[tuple[list[float], AnswerConfig]], names: list[str], settings: dict[str, list[Any]]
) -> None:
    """The best rows as a Markdown table."""
    print("| " + " | ".join([*settings, *names]) + " |\n" + "|---" * (len(settings) + len(names)) + "|")
    for values, config in sorted(rows, key=lambda row: -sum(row[0]))[:12]:
        cells = [str(getattr(config, name)) for name in settings] + [f"{100 * value:.1f}" for value in values]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Read the arguments, answer, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=300, help="of each model")
    arguments = parser.parse_args()
    data = DataFolder.open(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        asked = [
            held_out(model, data, arguments.queries, Path(folder) / str(number))
            for number, model in enumerate(arguments.models)
        ]
        base = load_config(arguments.models[0] / "config.yaml").answer
        spans = grid(base, SPAN_SETTINGS)
        names = ["R@1, IoU=0.5", "R@1, IoU=0.7", "R@5, IoU=0.5", "mIoU"]
        rows = mean_rows([moments_in_own_videos(*one, spans) for one in asked], names, spans)
        print(f"\nVideo given, {sum(len(task.queries) for _, task in asked)} held-out queries\n")
        show(rows, names, SPAN_SETTINGS)
        best = max(rows, key=lambda row: sum(row[0]))[1]
        lists = grid(best, LIST_SETTINGS)
        names = ["R@1, IoU=0.5", "R@10, IoU=0.5", "R@100, IoU=0.5"]
        rows = mean_rows([moments_in_corpus(*one, lists) for one in asked], names, lists)
        videos = " + ".join(str(len(task.video_ids)) for _, task in asked)
        print(f"\nWhole corpus of {videos} held-out videos, spans as in the first row above\n")
        show(rows, names, LIST_SETTINGS)


if __name__ == "__main__":
    main()
