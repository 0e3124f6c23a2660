"""Evaluate a model by every protocol, beside the rows that know nothing or less.

The story: take the queries and the corpus of a split; let the engine rank videos, ground in the true video
and answer from the whole corpus by the very code of `dciml search`; score each query; add the reference rows;
bootstrap intervals; report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml import cautions
from dciml.config import AnswerConfig
from dciml.datasets import DataFolder
from dciml.errors import DataError
from dciml.features import WHOLE_UP_TO, FeatureStore, QueryFeatureEncoder, WindowRule, same_space
from dciml.method import CosineSpace
from dciml.metrics import (
    Bin,
    Bootstrap,
    Chance,
    FloatArray,
    Interval,
    PerQuery,
    blind_spans,
    chance_recalls,
    concatenate,
    expected_calibration_error,
    lenient,
    moment_recalls,
    recalls,
    reliability_bins,
    score_blocks,
    strict,
)
from dciml.recipes.answers import SUPPRESSION_IOU, Answers, Clips, Task, ask, first_moments
from dciml.recipes.outcomes import Outcomes, Protocol
from dciml.recipes.report import MEDIAN_RANK, Report, Submission, Table, in_percent
from dciml.recipes.trained_on import known_already
from dciml.search import BaselineEngine, Calibration, DualEngine, Engine
from dciml.spans import temporal_iou
from dciml.types import Query, SearchHit
from dciml.version import __version__


def zero_shot_engine(engine: Engine, store: FeatureStore) -> BaselineEngine | None:
    """The untrained cosine with the text encoder of a trained engine.

    Returns: None when the features are known to be of another space, when the encoder has no sentence vector of
        their width, or when the engine is itself an untrained cosine.
    """
    if not isinstance(engine, DualEngine | BaselineEngine):
        return None
    if isinstance(engine, BaselineEngine) and isinstance(engine.space, CosineSpace):
        return None
    if isinstance(engine.text_encoder, QueryFeatureEncoder):
        return None  # it has no sentence vectors, and knows no sentence but those of its release
    sentence = engine.text_encoder.encode(["a video"])[0].sentence
    width = store.manifest.width
    if same_space(store.manifest.encoder, engine.text_encoder.name) is False:
        return None
    if sentence is None or len(sentence) != width:
        return None
    fingerprint = f"zero-shot {engine.text_encoder.name}"
    space = CosineSpace(width)
    return BaselineEngine(space, engine.text_encoder, engine.num_clips, fingerprint, store.manifest.encoder)


NOTHING_FOUND = "Nothing found"
SMALL_CORPUS = 10
SEED = 9527
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
    if task.moment_queries:
        rows["model"] |= _moments_row(engine, task, asked.clips, calibration, answer)
        about += (
            " ECE of moments: the same for the share of a moment in its video's confidence, the video given."
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
        """Ask in corpora of this many videos."""
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
    """Columns of a corpus of this many videos with the video `own`, and of one without it; in order."""
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


def _moments_row(
    engine: Engine, task: Task, clips: Clips, calibration: Calibration, answer: AnswerConfig
) -> dict[str, Interval]:
    """What the first moment in each query's own video states of itself, against whether it fits a true one."""
    stated, fits = [], []
    for confidence, hit, query in first_moments(engine, task, clips, calibration, answer):
        span = np.array([[hit.start_seconds, hit.end_seconds]])
        stated.append(confidence)
        fits.append(float(temporal_iou(span, np.array(query.moments)).max()))
    errors = {
        f"ECE of moments, IoU={least}": expected_calibration_error(
            reliability_bins(np.array(stated), np.array(fits) >= least)
        )
        for least in (0.3, 0.5)
    }
    return in_percent({name: Interval(error, error, error) for name, error in errors.items()})


def _bins(stated: Stated) -> tuple[tuple[Bin, ...], tuple[Bin, ...]]:
    is_there = np.zeros(stated.present.shape, dtype=bool)
    is_there[0] = True
    answers = reliability_bins(stated.present.ravel(), is_there.ravel())
    return answers, reliability_bins(stated.first.ravel(), stated.first_right.ravel())


MODEL = "model"
NUM_BLIND_VIDEOS = 10
Rows = dict[str, PerQuery]


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate. `num_queries` takes this many queries, drawn by a hash of their ids; None takes all.

    With the `calibration` of the engine, the report says how well "nothing found" and the stated confidence hold.
    `outcomes` is a file for what each query got, to compare with other runs. `windows` is how long videos are searched
    (`Model.windows`), in all rows; None: whole. `folders` are the model folders of rows, by name: what these were
    trained on is looked for in the split.
    """

    run: str = MODEL
    num_queries: int | None = None
    batch_size: int = 64
    seed: int = 9527
    num_resamples: int = 1000
    progress: bool = False
    submission: Path | None = None
    outcomes: Path | None = None
    calibration: Calibration | None = None
    windows: WindowRule | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)


def evaluate(
    engine: Engine,
    data: DataFolder,
    split: str,
    answer: AnswerConfig,
    *,
    others: Mapping[str, Engine] | None = None,
    options: EvaluateOptions | None = None,
) -> Report:
    """Evaluate an engine on a split.

    Args:
        data: holds the queries, the corpus (every video of the split) and the feature store.
        answer: how spans become answers; the same as in search.
        others: further engines, each a row of its own, for example {"zero-shot": …, "untrained": …}.
    Raises:
        DataError: the split is unknown or has no queries.
    """
    options = options or EvaluateOptions()
    task = make_task(data, split, options.num_queries, options.windows)
    warnings = cautions.tell(_cautions(task, split, options))
    submission = Submission.of_corpus(task.durations_seconds) if options.submission else None
    asked = {MODEL: ask(engine, task, answer, options.batch_size, options.progress, submission)}
    for name, other in (others or {}).items():
        asked[name] = ask(other, task, answer, options.batch_size, options.progress)
    tables = [_video_table(task, asked, options)]
    if task.moment_queries:
        tables += _moment_tables(task, asked, options, answer)
    named = f"{data.name}, queries {_checksum(task.queries)}"
    if options.outcomes:
        kept = Outcomes(
            options.run, named, split, len(task.durations_seconds), _protocols(task, asked[MODEL])
        )
        kept.write(options.outcomes)
    if options.calibration is not None:
        bootstrap = Bootstrap(task.queries, options.num_resamples, options.seed)
        tables.append(nothing_found(engine, task, options.calibration, answer, bootstrap).table)
    if submission and options.submission:
        submission.write(options.submission, task.queries)
    return Report(
        run=options.run,
        data=named,
        split=split,
        num_videos=len(task.durations_seconds),
        num_queries=len(task.queries),
        num_queries_with_moments=len(task.moment_queries),
        fingerprint=engine.fingerprint,
        answer=answer.model_dump(mode="json"),
        seed=options.seed,
        num_resamples=options.num_resamples,
        versions={"dciml": __version__, "numpy": np.__version__},
        notes=(*_notes(task, options), *_import_notes(data, split)),
        warnings=warnings,
        tables=tuple(tables),
    )


def make_task(
    data: DataFolder, split: str, num_queries: int | None = None, windows: WindowRule | None = None
) -> Task:
    """The queries and the corpus of a split, its long videos split by a rule."""
    durations = {video.video_id: video.duration_seconds for video in data.videos(split)}
    every = data.queries(split)
    if not every:
        raise DataError(f"the split {split!r} has no queries", where=data.path, mend="choose another --split")
    chosen = every if num_queries is None else sorted(every, key=_hash)[:num_queries]
    queries = tuple(sorted(chosen, key=lambda query: query.query_id))
    return Task(data.store, queries, durations, num_all_queries=len(every), windows=windows)


def _protocols(task: Task, answers: Answers) -> dict[str, Protocol]:
    """What each query got, by the names of the report's tables."""
    queries, found = (
        task.moment_queries,
        {"VR": Protocol.of(task.queries, recalls(task.queries, answers.video_ranks))},
    )
    if queries:
        spans = {query_id: _spans(hits) for query_id, hits in answers.true_video_hits.items()}
        found["SVMR"] = Protocol.of(queries, moment_recalls(queries, spans))
        found["VCMR, strict"] = Protocol.of(queries, concatenate(answers.strict))
    return found


def _video_table(task: Task, asked: Mapping[str, Answers], options: EvaluateOptions) -> Table:
    bootstrap = Bootstrap(task.queries, options.num_resamples, options.seed)
    rows = {}
    for name, answers in asked.items():
        found = in_percent(bootstrap.means(recalls(task.queries, answers.video_ranks)))
        rows[name] = found | {MEDIAN_RANK: bootstrap.median(answers.video_ranks)}
    num_videos = len(task.durations_seconds)
    middle = (num_videos + 1) / 2
    chance = in_percent(bootstrap.means(chance_recalls(task.queries, num_videos)))
    rows["chance"] = chance | {MEDIAN_RANK: Interval(middle, middle, middle)}
    about = "The right video among the first K of the whole corpus; a tie counts against."
    return Table("VR", about, len(task.queries), rows)


def _moment_tables(
    task: Task, asked: Mapping[str, Answers], options: EvaluateOptions, answer: AnswerConfig
) -> list[Table]:
    bootstrap = Bootstrap(task.moment_queries, options.num_resamples, options.seed)
    blind = {q.query_id: blind_spans(task.durations_seconds[q.video_id]) for q in task.moment_queries}
    chance = Chance(
        task.moment_queries, {q.query_id: task.durations_seconds[q.video_id] for q in task.moment_queries}
    )
    found = {
        "SVMR": (
            "The video is given: one of the first n spans has IoU ≥ m with a true moment.",
            _grounding_rows(task, asked, blind) | {"chance": chance.moment_recalls()},
        ),
        "VCMR, strict": (
            "One of the first K (video, span) answers of the whole corpus is the right video with IoU ≥ m.",
            _strict_rows(task, asked, blind, answer) | {"chance": chance.strict(len(task.durations_seconds))},
        ),
        "VCMR, lenient": (
            "The right video is among the first K, and any of its first N_p proposals has IoU ≥ m; proposals and "
            "windows: any of the first N_p spans that an answer has of it.",
            _lenient_rows(task, asked, blind) | {"chance": chance.lenient(len(task.durations_seconds))},
        ),
    }
    return [
        Table(
            name,
            about,
            len(task.moment_queries),
            {row: in_percent(bootstrap.means(s)) for row, s in rows.items()},
        )
        for name, (about, rows) in found.items()
    ]


def _grounding_rows(task: Task, asked: Mapping[str, Answers], blind: Mapping[str, FloatArray]) -> Rows:
    queries = task.moment_queries
    rows = {}
    for name, answers in asked.items():
        spans = {query_id: _spans(hits) for query_id, hits in answers.true_video_hits.items()}
        rows[name] = moment_recalls(queries, spans)
        if name == MODEL:
            rows["proposals by reconstruction"] = moment_recalls(queries, answers.proposals)
    return rows | {"blind spans": moment_recalls(queries, blind)}


def _strict_rows(
    task: Task, asked: Mapping[str, Answers], blind: Mapping[str, FloatArray], answer: AnswerConfig
) -> Rows:
    queries, model = task.moment_queries, asked[MODEL]
    otherwise = f"model, NMS {SUPPRESSION_IOU}" if answer.nms_iou is None else "model, no NMS"
    rows = {MODEL: concatenate(model.strict), otherwise: concatenate(model.strict_otherwise)}
    rows["oracle retrieval"] = strict(queries, model.true_video_hits)
    rows |= {name: concatenate(answers.strict) for name, answers in asked.items() if name != MODEL}
    whole = [_blind_strict(task, model, query, 100, 1) for query in queries]
    spans = [_blind_strict(task, model, query, NUM_BLIND_VIDEOS, 10) for query in queries]
    rows["retrieval only + whole videos"] = concatenate(whole)
    rows["retrieval only + blind spans"] = concatenate(spans)
    oracle = {q.query_id: _as_hits([q.video_id], [blind[q.query_id]]) for q in queries}
    return rows | {"oracle retrieval + blind spans": strict(queries, oracle)}


def _blind_strict(task: Task, model: Answers, query: Query, num_videos: int, num_spans: int) -> PerQuery:
    """The model's video ranking, and in each video the first few blind spans, video after video."""
    videos = model.first_videos[query.query_id][:num_videos]
    spans = [blind_spans(task.durations_seconds[video])[:num_spans] for video in videos]
    return strict([query], {query.query_id: _as_hits(videos, spans)})


def _lenient_rows(task: Task, asked: Mapping[str, Answers], blind: Mapping[str, FloatArray]) -> Rows:
    queries, model = task.moment_queries, asked[MODEL]
    ranks = {
        name: {query.query_id: answers.video_ranks[query.query_id] for query in queries}
        for name, answers in asked.items()
    }
    first = {query.query_id: 1 for query in queries}
    rows = {MODEL: lenient(queries, ranks[MODEL], model.proposals)}
    spans = {query_id: _spans(hits) for query_id, hits in model.true_video_hits.items()}
    rows["model, proposals and windows"] = lenient(queries, ranks[MODEL], spans)
    rows["oracle retrieval"] = lenient(queries, first, model.proposals)
    for name, answers in asked.items():
        if name != MODEL:
            rows[name] = lenient(queries, ranks[name], answers.proposals)
    rows["retrieval only + blind spans"] = lenient(queries, ranks[MODEL], blind)
    return rows | {"oracle retrieval + blind spans": lenient(queries, first, blind)}


def _as_hits(videos: Sequence[str], spans: Sequence[FloatArray]) -> list[SearchHit]:
    pairs = [(video, span) for video, own in zip(videos, spans, strict=True) for span in own]
    return [SearchHit(i, v, float(s[0]), float(s[1]), -float(i)) for i, (v, s) in enumerate(pairs, start=1)]


def _spans(hits: Sequence[SearchHit]) -> FloatArray:
    return np.array([(hit.start_seconds, hit.end_seconds) for hit in hits], dtype=np.float64).reshape(-1, 2)


def _import_notes(data: DataFolder, split: str) -> list[str]:
    """What the import did to the true moments of the split; nothing when the data folder does not say."""
    found = []
    for name, what in (
        ("clipped_moments", "ended after their video and were clipped to its end"),
        ("dropped_moments", "were impossible and were dropped"),
    ):
        counts = data.notes.get(name)
        number = counts.get(split) if isinstance(counts, dict) else None
        if number:
            found.append(f"At import, {number} true moments of the split {what}.")
    return found


def _cautions(task: Task, split: str, options: EvaluateOptions) -> list[str]:
    """What of the split the models know already; nothing of models whose folder is not given."""
    then = "the figures tell what the model remembers, not what it finds in new videos; evaluate on others"
    what, sentences = f"the split {split!r}", [query.sentence for query in task.queries]
    found = list(options.calibration.warnings) if options.calibration else []
    for row, folder in options.folders.items():
        own = known_already(folder, task.store, task.video_ids, sentences, what=what, then=then)
        found += own if row == MODEL else [f"row {row}: {caution}" for caution in own]
    return found


def _hash(query: Query) -> tuple[str, str]:
    return hashlib.sha256(query.query_id.encode()).hexdigest(), query.query_id


def _checksum(queries: Sequence[Query]) -> str:
    return hashlib.sha256("\n".join(query.query_id for query in queries).encode()).hexdigest()[:12]


def _notes(task: Task, options: EvaluateOptions) -> list[str]:
    notes = []
    if len(task.queries) < task.num_all_queries:
        notes.append(
            f"Only {len(task.queries)} of {task.num_all_queries} queries, drawn by a hash of their ids; "
            "the corpus is whole."
        )
    without = len(task.queries) - len(task.moment_queries)
    if without:
        notes.append(f"{without} queries have no true moment and count for VR only.")
    if task.windows and task.long_videos:
        seconds = task.windows.window_seconds
        notes.append(
            f"{len(task.long_videos)} videos are longer than {WHOLE_UP_TO * seconds:g} s: searched in windows of "
            f"{seconds:g} s, as in an index, and scored in the time of the whole video."
        )
    draws = f"{options.num_resamples} draws, seed {options.seed}"
    notes.append(f"Intervals: 95 %, percentile bootstrap over videos, {draws}.")
    return notes
