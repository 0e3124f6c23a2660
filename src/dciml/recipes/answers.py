"""What an engine answers to the queries of a split: video ranks, spans in the true video, hits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.config import AnswerConfig
from dciml.features import FeatureStore, WindowedStore, WindowRule, parse_window, windows_of
from dciml.index import ClipIndex, IndexOptions
from dciml.metrics import MAX_ANSWERS, FloatArray, PerQuery, score_blocks, strict, true_ranks
from dciml.progress_line import ProgressLine
from dciml.recipes.report import Submission
from dciml.search import Calibration, Engine, Searcher
from dciml.types import Query, SearchHit

NUM_FIRST_VIDEOS = 100
SUPPRESSION_IOU = 0.5
Clips = NDArray[np.float32]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """The queries of a split, ordered by id, and its corpus: every video of the split with its duration.

    `num_all_queries` is how many the split has, of which `queries` may be a part. `windows` says how long videos are
    split, as in an index; None: never.
    """

    store: FeatureStore
    queries: tuple[Query, ...]
    durations_seconds: Mapping[str, float]
    num_all_queries: int
    windows: WindowRule | None = None

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """The corpus, ordered by id."""
        return tuple(sorted(self.durations_seconds))

    @cached_property
    def windowed_store(self) -> WindowedStore:
        """The features of the videos and of the windows of long ones."""
        return WindowedStore.of(self.store)

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """What an index holds of each video, in the order of `video_ids`: its own id, of a long one its windows."""
        return {video_id: windows_of(self.store, video_id, self.windows) for video_id in self.video_ids}

    @cached_property
    def indexed_ids(self) -> tuple[str, ...]:
        """All parts of all videos (P), those of a video one after another."""
        return tuple(part for parts in self.parts.values() for part in parts)

    @cached_property
    def long_videos(self) -> frozenset[str]:
        """The videos that are split."""
        return frozenset(video_id for video_id, parts in self.parts.items() if parts != (video_id,))

    def seconds_of_part(self, part: str) -> float:
        """How long a video or a window is."""
        return self.durations_seconds.get(part) or self.windowed_store.duration_seconds(part)

    def moments_of_part(self, part: str, spans_unit: FloatArray) -> FloatArray:
        """Spans in unit time of a video or a window → seconds in the whole video."""
        window = None if part in self.durations_seconds else parse_window(part)
        begin = 0.0 if window is None else window.start_seconds
        return begin + self.windowed_store.row_times(part).seconds(spans_unit)

    def fused_clips(self, engine: Engine) -> Clips:
        """What an engine makes of each part, (P, S, D)."""
        return engine.fused_clips(self.windowed_store, self.indexed_ids)

    def of_videos(self, scores: Scores) -> Scores:
        """Scores of parts (Q, P) → of videos (Q, V): a long video counts by its best window."""
        if not self.long_videos:
            return scores
        firsts = np.cumsum([0, *(len(parts) for parts in self.parts.values())])[:-1]
        best: Scores = np.maximum.reduceat(scores, firsts, axis=1)
        return best

    @cached_property
    def moment_queries(self) -> tuple[Query, ...]:
        """The queries with a true moment."""
        return tuple(query for query in self.queries if query.moments)


@dataclass(frozen=True)
class Answers:
    """All keyed by query id; videos are whole videos, and times are theirs.

    `video_ranks`: rank of the true video; `first_videos`: the best 100 videos. For queries with moments:
    `proposals`: (P, 2) seconds in the true video in the engine's own order, of a long video those in its best window;
    `true_video_hits`: what search answers in that video; `strict` and `strict_otherwise`: scores of the corpus-wide
    hits, in parts, as the settings say and with the suppression of near-duplicates the other way round
    (`other_suppression`).
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
        clips = task.fused_clips(engine)
        index = index_corpus(engine, task, clips, Path(folder) / "index")
        searcher = Searcher(engine, index, task.windowed_store, answer)
        _rank_videos(engine, task, clips, answers, submission)
        queries = task.queries if submission else task.moment_queries
        batches = [queries[start : start + batch_size] for start in range(0, len(queries), batch_size)]
        with ProgressLine(quiet=not progress) as line:
            line.begin("evaluating", len(queries))
            for number, batch in enumerate(batches):
                _ask_moments(searcher, task, batch, answers, submission)
                line.tell(min((number + 1) * batch_size, len(queries)))
    return answers


def first_moments(
    engine: Engine, task: Task, clips: Clips, calibration: Calibration, answer: AnswerConfig
) -> Iterator[tuple[float, SearchHit, Query]]:
    """The first moment of each query with moments in its own video, and how much of the video's confidence it has.

    Args:
        clips: `task.fused_clips(engine)`.
    """
    with tempfile.TemporaryDirectory(prefix="dciml-evaluate-") as folder:
        index = index_corpus(engine, task, clips, Path(folder) / "index")
        searcher = Searcher(engine, index, task.windowed_store, answer, calibration)
        for query in task.moment_queries:
            for hit in searcher.answer(query.sentence, 1, [query.video_id]).hits:
                if hit.confidence and hit.moment_confidence is not None:
                    yield hit.moment_confidence / hit.confidence, hit, query


def index_corpus(engine: Engine, task: Task, clips: Clips, folder: Path) -> ClipIndex:
    """An index of the corpus in a new folder from the fused clips (P, S, D), searched exactly whatever its size."""
    index = ClipIndex.create(
        folder,
        num_clips=engine.num_clips,
        width=engine.vector_width,
        fingerprint=engine.fingerprint,
        model_folder=folder,
        store_path=task.store.path,
        options=IndexOptions(exact_videos=len(task.indexed_ids)),
    )
    index.add(task.indexed_ids, clips, [task.seconds_of_part(part) for part in task.indexed_ids])
    return index


def _rank_videos(
    engine: Engine, task: Task, clips: Clips, answers: Answers, submission: Submission | None
) -> None:
    video_ids = task.video_ids
    column = {video_id: index for index, video_id in enumerate(video_ids)}
    vectors = engine.embed_queries([query.sentence for query in task.queries])
    for chosen, part_scores in score_blocks(vectors, clips):
        queries, scores = task.queries[chosen], task.of_videos(part_scores)
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
    sentences = [query.sentence for query in queries]
    seen = [_best_part(searcher, task, query) for query in queries]
    grounding = searcher.engine.ground(task.windowed_store, sentences, seen)
    given = searcher.ground_given(sentences, seen, grounding)
    for query, part, spans_unit, hits in zip(queries, seen, grounding.spans_unit, given, strict=True):
        answers.proposals[query.query_id] = task.moments_of_part(part, spans_unit)
        if part != query.video_id:
            hits = searcher.search(query.sentence, MAX_ANSWERS, [query.video_id])
        answers.true_video_hits[query.query_id] = hits[:MAX_ANSWERS]
        if submission:
            submission.add_hits("SVMR", query.query_id, hits[:MAX_ANSWERS])


def _best_part(searcher: Searcher, task: Task, query: Query) -> str:
    """The true video of a query; of a long one the window that fits the sentence best."""
    if query.video_id not in task.long_videos:
        return query.video_id
    ((best,),) = searcher.match_videos([query.sentence], 1, [query.video_id])
    return best.video_id
