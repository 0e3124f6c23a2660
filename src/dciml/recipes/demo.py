"""The whole job on the embedded demo corpus: videos → features → training → evaluation → index → answers → page.

    OUT/videos/      MP4 files            OUT/data/      data folder with the features
    OUT/model/       the trained model    OUT/untrained/ the same with its first, random weights
    OUT/report.json  the evaluation       OUT/index/     the search index over the test videos
    OUT/index.html   the page, with OUT/keyframes/

The same seed gives the same result. Videos and features are used again when they are there; all else is made anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console

from dciml.config import RunConfig, load_config
from dciml.datasets import DataFolder
from dciml.demo import (
    MADE_FILE,
    PAGE_FILE,
    Corpus,
    CorpusSize,
    ExampleAnswer,
    FigureRow,
    Figures,
    made_by,
    make_data_folder,
    make_videos,
    plan_corpus,
    video_path,
    write_page,
)
from dciml.errors import DataError, ModelError
from dciml.features import BuiltinVisualEncoder
from dciml.files import read_json, write_json
from dciml.folders import CARD_FILE, SETTINGS_FILE, VOCABULARY_FILE, WEIGHTS_FILE, refuse_foreign
from dciml.locks import Lock, take
from dciml.processes import called_beside
from dciml.progress_line import ProgressLine
from dciml.types import Query

if TYPE_CHECKING:
    from dciml.recipes.baseline import SharedSpaceConfig
    from dciml.recipes.report import Report

DEMO_FILE = "demo.json"
PARTS = {
    "model": CARD_FILE,
    "shared-space": CARD_FILE,
    "untrained": CARD_FILE,
    "index": "catalogue.sqlite",
}
"""What is made anew each time, and by what it is known."""
EPOCHS, SHARED_SPACE_EPOCHS = 72, 60
"""Of the demo's settings, and of the plainest model beside them; a shorter demo shortens both."""
NUM_SENTENCES = 8
NUM_HITS = 4
COLUMNS = {  # heading → protocol and metric of the report
    "VR R@1": ("VR", "R@1"),
    "VR R@10": ("VR", "R@10"),
    "SVMR R@1": ("SVMR", "R@1, IoU=0.5"),
    "VCMR R@1": ("VCMR, strict", "R@1, IoU=0.5"),
    "VCMR R@10": ("VCMR, strict", "R@10, IoU=0.5"),
}
LAST_ROWS = ("blind spans", "chance")
ABOUT = (
    "VR: the right video is found. SVMR: the video is given, the moment is found. VCMR: video and moment are both "
    "found in the whole corpus. R@10: among the first ten answers. A moment counts when its overlap (IoU) with the "
    "true one is at least 0.5. Blind spans are the same for every sentence: whole video, halves, thirds, quarters. "
    "Oracle retrieval is told the right video. Untrained is the same model with its first, random weights. Shared "
    "space is two linear layers, trained on all pairs: what a model must beat."
)


@dataclass(frozen=True)
class DemoOptions:
    """What may be changed; `overrides` are settings as for `dciml train --set`."""

    size: CorpusSize = field(default_factory=CorpusSize)
    seed: int = 7
    workers: int = 2
    overrides: tuple[str, ...] = ()


def run_demo(out: Path, options: DemoOptions | None = None, console: Console | None = None) -> Path:
    """Run everything; returns the page.

    Raises:
        DataError: `out` is not the demo's, or another process has it.
    """
    options, console = options or DemoOptions(), console or Console()
    begin = monotonic()
    lock = claim(out, options.seed)
    try:
        page = _run(out, options, console)
    finally:
        lock.close()
    console.print(
        f"Everything took {monotonic() - begin:.0f} s. Open {page}", soft_wrap=True, highlight=False
    )
    return page


def claim(out: Path, seed: int) -> Lock:
    """Make the demo's folder, or see that it is one and that what will be replaced in it was made by the demo.

    Raises:
        DataError: `out`, or a part of it, is not the demo's, or another process has it.
    """
    made_before = (out / "videos" / MADE_FILE).is_file()  # by a version without a marker of its own
    if not made_before:
        refuse_foreign(out, DEMO_FILE)
    for name, marker in PARTS.items():
        refuse_foreign(out / name, marker)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made ({error.strerror})"
        raise DataError(what, where=out, mend="name another folder") from error
    lock = take(out, "making the demo")
    write_json(out / DEMO_FILE, made_by(seed))
    return lock


def _train_plainest(data: Path, out: Path, config: SharedSpaceConfig) -> Path:
    import torch

    from dciml.recipes.baseline import train_shared_space

    torch.set_num_threads(1)
    return train_shared_space(DataFolder.open(data), out, config)


def _run(out: Path, options: DemoOptions, console: Console) -> Path:
    from dciml.model_folder import load_model
    from dciml.recipes.baseline import SharedSpaceConfig
    from dciml.recipes.evaluate import EvaluateOptions, evaluate
    from dciml.recipes.index import build_index
    from dciml.recipes.train import train

    stories = plan_corpus(options.size, options.seed)
    with _stage(console, f"{len(stories)} videos", len(stories)) as line:
        drawn = iter(range(1, len(stories) + 1))
        make_videos(stories, out / "videos", options.workers, lambda _: line.tell(next(drawn)))
    with _stage(console, "features", len(stories)) as line:
        data = make_data_folder(
            stories,
            out / "videos",
            out / "data",
            BuiltinVisualEncoder(),
            options.workers,
            lambda now: line.tell(now.num_done),
        )
    config = _config(data, options.overrides)
    for name in PARTS:
        shutil.rmtree(out / name, ignore_errors=True)
    plainest = SharedSpaceConfig(
        text=config.text.encoder,
        max_words=config.text.max_words,
        num_clips=config.retrieval.num_clips,
        epochs=max(1, config.training.epochs * SHARED_SPACE_EPOCHS // EPOCHS),
        seed=config.seed,
    )
    train_plainest = partial(_train_plainest, data.path, out / "shared-space")
    # Both train on one thread: where there is a second core, the plainest model takes no time of its own.
    with called_beside(train_plainest, plainest, alone=options.workers == 1) as shared_space_folder:
        with _stage(console, "training", shows_itself=True):
            model_folder = train(config, out / "model", resume=False)
        with _stage(console, "the plainest model"):
            shared_space = load_model(shared_space_folder())
    with _stage(console, "evaluation", shows_itself=True):
        model = load_model(model_folder)
        untrained = load_model(_untrained_copy(model_folder, out / "untrained", config))
        report = evaluate(
            model.engine,
            data,
            "test",
            config.answer,
            others={"shared space": shared_space.engine, "untrained": untrained.engine},
            options=EvaluateOptions(
                run="demo", progress=console.is_terminal, calibration=model.calibration, windows=model.windows
            ),
        )
        report.write(out / "report.json")
    with _stage(console, "index") as line:
        build_index(
            model,
            data.path,
            out / "index",
            split="test",
            on_progress=lambda done, total: line.tell(done, total=total),
        )
    with _stage(console, "answers and page"):
        page = _page(out, data, report)
    _print_report(report, console)
    return page


def is_finished(out: Path, options: DemoOptions) -> bool:
    """Whether `out` holds all that `run_demo` would make with these options."""
    from dciml.index import ClipIndex

    marker = out / "videos" / MADE_FILE
    # The page is written last; other settings of the training leave no trace that could be compared.
    if options.overrides or not (out / PAGE_FILE).is_file() or not marker.is_file():
        return False
    try:
        ClipIndex.open(out / "index")
        return bool(read_json(marker) == made_by(options.seed))
    except (DataError, ModelError):  # damaged, or of an older version
        return False


def choose_queries(queries: Sequence[Query], number: int) -> list[Query]:
    """Queries at even distances in the order of their ids, so that none is picked for being good.

    >>> [q.query_id for q in choose_queries([Query(f"q{i}", "v", "s") for i in range(6)], 3)]
    ['q0', 'q2', 'q4']
    """
    ordered = sorted(queries, key=lambda query: query.query_id)
    number = min(number, len(ordered))
    return [ordered[index * len(ordered) // number] for index in range(number)]


def figures_of(report: Report) -> Figures:
    """The rows of a report that belong on the page; a row that a protocol does not have stays open there."""
    names: dict[str, None] = {}
    for table, _ in COLUMNS.values():
        names |= dict.fromkeys(report.table(table).rows)
    order = sorted(names, key=lambda name: (name in LAST_ROWS, name == "chance", name != "model"))
    rows = []
    for name in order:
        values = []
        for table, metric in COLUMNS.values():
            interval = report.table(table).rows.get(name, {}).get(metric)
            values.append(None if interval is None else interval.value)
        rows.append(FigureRow("DCIML, trained" if name == "model" else name, tuple(values), name == "model"))
    return Figures(tuple(COLUMNS), tuple(rows), ABOUT)


def _config(data: DataFolder, overrides: Sequence[str]) -> RunConfig:
    """The demo's settings, which come with the package, on the data folder just made."""
    with as_file(files("dciml.demo") / "demo.yaml") as path:
        config = load_config(path, overrides)
    return config.model_copy(update={"data": config.data.model_copy(update={"folder": str(data.path)})})


def _untrained_copy(model_folder: Path, out: Path, config: RunConfig) -> Path:
    """A model folder like the trained one, with the weights that training began with."""
    from dciml.model_folder import ModelCard, build_dual
    from dciml.recipes.train import seed_everything
    from dciml.training import save_tensors

    out.mkdir(parents=True)
    for name in (CARD_FILE, SETTINGS_FILE, VOCABULARY_FILE):
        shutil.copyfile(model_folder / name, out / name)
    seed_everything(config.seed)
    dual = build_dual(config, ModelCard(**read_json(out / CARD_FILE)))
    save_tensors(out / WEIGHTS_FILE, dict(dual.state_dict()), {"epoch": "0"})
    return out


def _page(out: Path, data: DataFolder, report: Report) -> Path:
    import dciml

    searcher = dciml.open_index(out / "index")
    queries = choose_queries(data.queries("test"), NUM_SENTENCES)
    answers = [ExampleAnswer(query, tuple(searcher.search(query.sentence, NUM_HITS))) for query in queries]
    videos = data.videos("test")
    corpus = Corpus(
        {video.video_id: video_path(out / "videos", video.video_id) for video in videos},
        {video.video_id: video.duration_seconds for video in videos},
    )
    return write_page(out, "dciml: moments found in the demo videos", figures_of(report), answers, corpus)


def _print_report(report: Report, console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    figures = figures_of(report)
    table = Table(box=SIMPLE_HEAD)
    table.add_column(f"{report.num_queries} sentences, {report.num_videos} videos; percent", no_wrap=True)
    for column in figures.columns:
        table.add_column(column, justify="right")
    for row in figures.rows:
        cells = ("–" if value is None else f"{value:.1f}" for value in row.values)
        table.add_row(row.name, *cells, style="bold" if row.is_model else None)
    console.print(table)
    console.print(figures.about, highlight=False)


@contextmanager
def _stage(
    console: Console, name: str, total: int | None = None, *, shows_itself: bool = False
) -> Iterator[ProgressLine]:
    """Say what is done, in a line that shows how far it is, and then how long it took."""
    begin = monotonic()
    if not console.is_terminal or shows_itself:
        console.print(f"{name} …", highlight=False)
    with ProgressLine(console, quiet=shows_itself) as line:
        line.begin(name, total)
        yield line
    console.print(f"{name}: {monotonic() - begin:.1f} s", highlight=False)
