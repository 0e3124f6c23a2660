"""How well "nothing found" and the stated confidence hold: each sentence with its video in the corpus, and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dciml.config import AnswerConfig
from dciml.metrics.intervals import Bootstrap, Interval
from dciml.metrics.reliability import Bin, expected_calibration_error, reliability
from dciml.metrics.video_retrieval import score_blocks
from dciml.recipes.answers import Task
from dciml.recipes.report import Table, in_percent
from dciml.search.calibration import Calibration
from dciml.search.engine import Engine

NOTHING_FOUND = "Nothing found"
SMALL_CORPUS = 10
SEED = 9527
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Stated:
    """What was stated for Q sentences, with the described video in the corpus (row 0) and without it (row 1).

    `present` (2, Q): probability that it is there. `first` (2, Q): that the first video is the right one;
    `first_right` (2, Q): whether it is.
    """

    present: FloatArray
    first: FloatArray
    first_right: BoolArray


@dataclass(frozen=True)
class NothingFound:
    """The table of a report, and what is stated against what is true: of answers, and of first videos."""

    table: Table
    answers: tuple[Bin, ...]
    first_videos: tuple[Bin, ...]


def nothing_found(
    engine: Engine, task: Task, calibration: Calibration, answer: AnswerConfig, bootstrap: Bootstrap
) -> NothingFound:
    """Measure on the queries of a task, in its whole corpus and, where that is large, in ten videos of it.

    The numbers are those that `Searcher.answer` gives, with and without the described video in `within`.
    """
    num_videos = len(task.video_ids)
    sizes = {"model": num_videos}
    if num_videos > 2 * SMALL_CORPUS:
        sizes[f"model, {SMALL_CORPUS} videos"] = SMALL_CORPUS
    asked = _Asked.of(engine, task, answer.num_videos)
    stated = {name: asked.state(calibration, size) for name, size in sizes.items()}
    rows = {name: _row(task, own, answer.min_confidence, bootstrap) for name, own in stated.items()}
    about = (
        "Each sentence is asked twice: with its video in the corpus, and with it taken out. Precision: of the answers "
        "'nothing found', those where it was out. Recall: of the sentences whose video was out, those so answered. "
        "Wrongly: of the others, those so answered. ECE: distance of stated confidence and truth."
    )
    table = Table(NOTHING_FOUND, about, len(task.queries), rows)
    return NothingFound(table, *_bins(stated["model"]))


@dataclass(frozen=True)
class _Asked:
    """The queries (Q, D), the clips of the corpus (P, S, D), and the column of each query's video (Q,).

    `owner` (P,) is the column of the video that each part belongs to: itself, or the long video of a window.
    """

    vectors: NDArray[np.float32]
    clips: NDArray[np.float32]
    owner: NDArray[np.int64]
    own: NDArray[np.int64]
    num_found: int

    @classmethod
    def of(cls, engine: Engine, task: Task, num_found: int) -> _Asked:
        column = {video_id: place for place, video_id in enumerate(task.video_ids)}
        own = np.array([column[query.video_id] for query in task.queries], dtype=np.int64)
        vectors = engine.embed_queries([query.sentence for query in task.queries])
        sizes = [len(parts) for parts in task.parts.values()]
        owner = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
        return cls(vectors, task.fused_clips(engine), owner, own, num_found)

    def state(self, calibration: Calibration, size: int) -> Stated:
        """Ask in corpora of so many videos."""
        numbers = np.zeros((3, 2, len(self.own)))
        num_videos, rng = int(self.owner[-1]) + 1, np.random.default_rng(SEED)
        for block, scores in score_blocks(self.vectors, self.clips):
            for place, row in zip(range(block.start, block.stop), scores, strict=True):
                for version, chosen in enumerate(_corpora(num_videos, int(self.own[place]), size, rng)):
                    videos, best = self._found(row, chosen)
                    stated = calibration.probabilities(
                        self.vectors[place : place + 1], best[None], len(chosen)
                    )
                    if len(videos):
                        first, is_right = float(stated.videos[0, 0]), videos[0] == self.own[place]
                        numbers[:, version, place] = float(stated.present[0]), first, is_right
        return Stated(numbers[0], numbers[1], numbers[2] > 0)

    def _found(
        self, row: NDArray[np.float32], chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The videos among `chosen` that search would look at, best first, and their scores; from those of parts."""
        is_chosen = np.zeros(int(self.owner[-1]) + 1, dtype=bool)
        is_chosen[chosen] = True
        parts = np.flatnonzero(is_chosen[self.owner])
        parts = parts[np.argsort(-row[parts], kind="stable")][: self.num_found]
        _, firsts = np.unique(self.owner[parts], return_index=True)  # a long video counts by its best window
        best = parts[np.sort(firsts)]
        return self.owner[best], row[best]


def _corpora(num_videos: int, own: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Columns of a corpus of so many videos with the video `own`, and of one without it; in order."""
    others = np.delete(np.arange(num_videos), own)
    if size < num_videos:
        others = rng.permutation(others)
    yield np.sort(np.append(others[: size - 1], own))
    yield np.sort(others[:size])


def _row(task: Task, stated: Stated, threshold: float, bootstrap: Bootstrap) -> dict[str, Interval]:
    ids = [query.query_id for query in task.queries]
    nothing = (stated.present < threshold).astype(np.float64)
    out = dict(zip(ids, nothing[1].tolist(), strict=True))
    both = dict(zip(ids, nothing.sum(axis=0).tolist(), strict=True))
    inside = dict(zip(ids, nothing[0].tolist(), strict=True))
    each = dict.fromkeys(ids, 1.0)
    ratios = {
        "precision": bootstrap.ratio(out, both),
        "recall": bootstrap.ratio(out, each),
        "wrongly": bootstrap.ratio(inside, each),
    }
    errors = {
        name: expected_calibration_error(bins)
        for name, bins in zip(("ECE of answers", "ECE of first videos"), _bins(stated), strict=True)
    }
    fixed = {name: Interval(error, error, error) for name, error in errors.items()}
    return in_percent({name: ratio for name, ratio in ratios.items() if ratio is not None} | fixed)


def _bins(stated: Stated) -> tuple[tuple[Bin, ...], tuple[Bin, ...]]:
    is_there = np.zeros(stated.present.shape, dtype=bool)
    is_there[0] = True
    answers = reliability(stated.present.ravel(), is_there.ravel())
    return answers, reliability(stated.first.ravel(), stated.first_right.ravel())
