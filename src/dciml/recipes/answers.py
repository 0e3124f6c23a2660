"""What an engine answers to the queries of a split: video ranks, spans in the true video, hits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from dciml.config import AnswerConfig
from dciml.features.store import FeatureStore
from dciml.index import ClipIndex, IndexOptions
from dciml.metrics.corpus_moments import MAX_ANSWERS, strict
from dciml.metrics.per_query import FloatArray, PerQuery
from dciml.metrics.video_retrieval import score_blocks, true_ranks
from dciml.recipes.submission import Submission
from dciml.search.engine import Engine
from dciml.search.searcher import Searcher
from dciml.spans import to_seconds
from dciml.types import Query, SearchHit

NUM_FIRST_VIDEOS = 100
SUPPRESSION_IOU = 0.5
Clips = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """The queries of a split, ordered by id, and its corpus: every video of the split with its duration.

    `num_all_queries` is how many the split has, of which `queries` may be a part.
    """

    store: FeatureStore
    queries: tuple[Query, ...]
    durations_seconds: Mapping[str, float]
    num_all_queries: int

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """The corpus, ordered by id."""
        return tuple(sorted(self.durations_seconds))

    @cached_property
    def moment_queries(self) -> tuple[Query, ...]:
        """The queries with a true moment."""
        return tuple(query for query in self.queries if query.moments)


@dataclass(frozen=True)
class Answers:
    """All keyed by query id.

    `video_ranks`: rank of the true video; `first_videos`: the best 100 videos. For queries with moments:
    `proposals`: (P, 2) seconds in the true video in the engine's own order; `true_video_hits`: what search
    answers in that video; `strict` and `strict_otherwise`: scores of the corpus-wide hits, in parts, as the
    settings say and with the suppression of near-duplicates the other way round (`other_suppression`).
    """

    video_ranks: dict[str, int] = field(default_factory=dict)
    first_videos: dict[str, tuple[str, ...]] = field(default_factory=dict)
    proposals: dict[str, FloatArray] = field(default_factory=dict)
    true_video_hits: dict[str, list[SearchHit]] = field(default_factory=dict)
    strict: list[PerQuery] = field(default_factory=list)
    strict_otherwise: list[PerQuery] = field(default_factory=list)


def ask(
    engine: Engine,
    task: Task,
    answer: AnswerConfig,
    batch_size: int = 64,
    progress: bool = False,
    submission: Submission | None = None,
) -> Answers:
    """Put all queries of a task to an engine, in batches; each batch is scored and dropped.

    Hits come from a `Searcher` over an index of the corpus: the code behind `dciml search`.

    Args:
        submission: filled with all predictions when given.
    """
    answers = Answers()
    with tempfile.TemporaryDirectory(prefix="dciml-evaluate-") as folder:
        clips = engine.fused_clips(task.store, task.video_ids)
        index = index_corpus(engine, task, clips, Path(folder) / "index")
        searcher = Searcher(engine, index, task.store, answer)
        _rank_videos(engine, task, clips, answers, submission)
        queries = task.queries if submission else task.moment_queries
        batches = [queries[start : start + batch_size] for start in range(0, len(queries), batch_size)]
        for batch in track(batches, "evaluating", disable=not progress, transient=True):
            _ask_moments(searcher, task, batch, answers, submission)
    return answers


def index_corpus(engine: Engine, task: Task, clips: Clips, folder: Path) -> ClipIndex:
    """An index of the corpus in a new folder from the fused clips (V, S, D), searched exactly whatever its size."""
    index = ClipIndex.create(
        folder,
        num_clips=engine.num_clips,
        width=engine.vector_width,
        fingerprint=engine.fingerprint,
        model_folder=folder,
        store_path=task.store.path,
        options=IndexOptions(exact_videos=len(task.video_ids)),
    )
    durations = [task.durations_seconds[video_id] for video_id in task.video_ids]
    index.add(task.video_ids, clips, durations)
    return index


def _rank_videos(
    engine: Engine, task: Task, clips: Clips, answers: Answers, submission: Submission | None
) -> None:
    video_ids = task.video_ids
    column = {video_id: index for index, video_id in enumerate(video_ids)}
    vectors = engine.embed_queries([query.sentence for query in task.queries])
    for chosen, scores in score_blocks(vectors, clips):
        queries = task.queries[chosen]
        ranks = true_ranks(scores, [column[query.video_id] for query in queries])
        # Stable: of equal scores the smaller id comes first, so the same run gives the same file.
        order = np.argsort(-scores, axis=1, kind="stable")[:, :NUM_FIRST_VIDEOS]
        for row, query in enumerate(queries):
            first = tuple(video_ids[index] for index in order[row])
            answers.video_ranks[query.query_id] = int(ranks[row])
            answers.first_videos[query.query_id] = first
            if submission:
                submission.add_videos(query.query_id, first, scores[row, order[row]].tolist())


def other_suppression(answer: AnswerConfig) -> AnswerConfig:
    """The same settings without the suppression of near-duplicates inside a video, or, where there is none, with it."""
    return answer.model_copy(update={"nms_iou": SUPPRESSION_IOU if answer.nms_iou is None else None})


def _ask_moments(
    searcher: Searcher,
    task: Task,
    queries: Sequence[Query],
    answers: Answers,
    submission: Submission | None,
) -> None:
    """Search the corpus and the true videos for a batch of queries; score and drop."""
    sentences = [query.sentence for query in queries]
    ids = [query.query_id for query in queries]
    both = searcher.search_variants(
        sentences, [searcher.config, other_suppression(searcher.config)], MAX_ANSWERS
    )
    found, found_otherwise = (dict(zip(ids, hits, strict=True)) for hits in both)
    if submission:
        for query_id, hits in found.items():
            submission.add_hits("VCMR", query_id, hits)
    with_moments = [query for query in queries if query.moments]
    if not with_moments:
        return
    scored = {query.query_id: found[query.query_id] for query in with_moments}
    answers.strict.append(strict(with_moments, scored))
    otherwise = {query.query_id: found_otherwise[query.query_id] for query in with_moments}
    answers.strict_otherwise.append(strict(with_moments, otherwise))
    _ask_true_videos(searcher, task, with_moments, answers, submission)


def _ask_true_videos(
    searcher: Searcher,
    task: Task,
    queries: Sequence[Query],
    answers: Answers,
    submission: Submission | None,
) -> None:
    """Ground in the true video: by the rule of search, and in the engine's own order."""
    sentences, video_ids = [q.sentence for q in queries], [q.video_id for q in queries]
    grounding = searcher.engine.ground(task.store, sentences, video_ids)
    hits = searcher.ground_given(sentences, video_ids, grounding)
    for query, spans_unit, own in zip(queries, grounding.spans_unit, hits, strict=True):
        seconds = np.full(len(spans_unit), task.durations_seconds[query.video_id])
        answers.proposals[query.query_id] = to_seconds(spans_unit, seconds)
        answers.true_video_hits[query.query_id] = own[:MAX_ANSWERS]
        if submission:
            submission.add_hits("SVMR", query.query_id, own[:MAX_ANSWERS])
