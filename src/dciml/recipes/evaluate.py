"""Evaluate a model by every protocol, beside the rows that know nothing or less.

The story: take the queries and the corpus of a split; let the engine rank videos, ground in the true video
and answer from the whole corpus by the very code of `dciml search`; score each query; add the reference rows;
bootstrap intervals; report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dciml import cautions
from dciml.config import AnswerConfig
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.features.long_videos import WHOLE_UP_TO, WindowRule
from dciml.metrics.baselines import Chance, blind_spans, chance_recalls
from dciml.metrics.corpus_moments import lenient, strict
from dciml.metrics.grounding import moment_recalls
from dciml.metrics.intervals import Bootstrap, Interval
from dciml.metrics.per_query import FloatArray, PerQuery, concatenate
from dciml.metrics.video_retrieval import recalls
from dciml.recipes.answers import SUPPRESSION_IOU, Answers, Task, ask
from dciml.recipes.nothing_found import nothing_found
from dciml.recipes.report import MEDIAN_RANK, Report, Table, in_percent
from dciml.recipes.submission import Submission
from dciml.recipes.trained_on import known_already
from dciml.search.calibration import Calibration
from dciml.search.engine import Engine
from dciml.types import Query, SearchHit
from dciml.version import __version__

MODEL = "model"
NUM_BLIND_VIDEOS = 10
Rows = dict[str, PerQuery]


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate. `num_queries` takes so many queries, drawn by a hash of their ids; None takes all.

    With the `calibration` of the engine, the report says how well "nothing found" and the stated confidence hold.
    `windows` is how long videos are searched (`Model.windows`), in all rows; None: whole. `folders` are the model
    folders of rows, by name: what these were trained on is looked for in the split.
    """

    run: str = MODEL
    num_queries: int | None = None
    batch_size: int = 64
    seed: int = 9527
    num_resamples: int = 1000
    progress: bool = False
    submission: Path | None = None
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
    if options.calibration is not None:
        bootstrap = Bootstrap(task.queries, options.num_resamples, options.seed)
        tables.append(nothing_found(engine, task, options.calibration, answer, bootstrap).table)
    if submission and options.submission:
        submission.write(options.submission, task.queries)
    return Report(
        run=options.run,
        data=f"{data.name}, queries {_checksum(task.queries)}",
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
            "The right video is among the first K, and any of its first N_p proposals has IoU ≥ m.",
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
    """The model's video ranking, and in each video the first so many blind spans, video after video."""
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
