"""All rows of docs/RESULTS.md for one corpus: the model, what it is without its parts, and the plainest models.

    python benchmarks/results.py demo --data demo-out/data --out runs/results
    python benchmarks/results.py flickr_stitched --data data/flickr_stitched --out runs/results --seeds 1 2 3

Every row answers all test queries in the same corpus, by the answer settings of the corpus; where those ask for
proposals, the plainest models have their best windows. Trained rows are the mean over seeds ± their standard
deviation; a row with one seed, or without any training, has a 95 % bootstrap interval over videos. "local alone" and
"others alone" are the scales of the same trained model. The last row is the first one less the best baseline,
sentence by sentence: the mean over seeds, with a 95 % bootstrap interval over videos.

A run that has its report already is not made again, and one that was stopped goes on; so several calls, one a seed, can
share the work, and a last one with all seeds prints the table. `--config` names other settings than the short schedule
of the corpus, those in configs/full say.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from machine import write_figures

from dciml.config import RunConfig, load_config
from dciml.datasets import DataFolder
from dciml.errors import DataError
from dciml.files import write_json
from dciml.folders import CHECKPOINT_FILE
from dciml.model_folder import load_model
from dciml.recipes.baseline import CosineConfig, SharedSpaceConfig, build_cosine, train_shared_space
from dciml.recipes.evaluate import EvaluateOptions, evaluate
from dciml.recipes.outcomes import differences, read_outcomes
from dciml.recipes.report import Report, read_report
from dciml.recipes.train import train
from dciml.search import DualEngine

ROOT = Path(__file__).parents[1]
SHARED_SPACE_EPOCHS = {"demo": 60, "flickr_stitched": 8, "qvh_captions": 15, "charades_sim": 10}
OFF = tuple(
    f"mutual.{switch}=false"
    for switch in (
        "explicit_to_retrieval",
        "implicit_to_retrieval",
        "explicit_to_grounding",
        "implicit_to_grounding",
    )
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "dciml": (),
    "no pathway": OFF,
    "no explicit to retrieval": (OFF[0],),
    "no explicit to grounding": (OFF[2],),
    "no anchors": ("grounding.anchors=false",),
    "implicit too": ("mutual.implicit_to_retrieval=true", "mutual.implicit_to_grounding=true"),
    "joint": ("training.mode=joint",),
    "no local scale, published forms": (
        "grounding.anchors=false",
        "retrieval.local=none",
        "mutual.to_retrieval_form=mask",
        "mutual.to_grounding_form=clip",
        "weights.explicit_to_retrieval=1",
    ),
}
ALONE = {"local alone": 1.0, "others alone": 0.0}
COLUMNS = (
    ("VR R@1", "VR", "model", "R@1"),
    ("R@10", "VR", "model", "R@10"),
    ("SVMR R@1, IoU .5", "SVMR", "model", "R@1, IoU=0.5"),
    (".7", "SVMR", "model", "R@1, IoU=0.7"),
    ("strict VCMR R@1, IoU .5", "VCMR, strict", "model", "R@1, IoU=0.5"),
    ("R@10", "VCMR, strict", "model", "R@10, IoU=0.5"),
    ("proposals: first", "SVMR", "proposals by reconstruction", "R@1, IoU=0.5"),
    ("best of 5", "SVMR", "proposals by reconstruction", "R@5, IoU=0.5"),
)
HEAD = (
    "| row | " + " | ".join(heading for heading, *_ in COLUMNS) + " |",
    "|---" * (len(COLUMNS) + 1) + "|",
)
MADE = "made.json"  # in the folder of a run: nothing stopped it before its end
OUTCOMES = "outcomes.json"  # beside the report
PLAINEST = ("shared space", "untrained cosine", "untrained cosine, propagated")
KNOW_LESS = ("retrieval only + blind spans", "blind spans", "chance")


@dataclass(frozen=True)
class Corpus:
    """What all rows share."""

    name: str
    data: DataFolder
    config: Path
    out: Path
    overrides: tuple[str, ...]
    device: str = "cpu"
    shared_space_epochs: int | None = None

    def settings(self, *overrides: str) -> RunConfig:
        """Of the corpus, on its data."""
        return load_config(self.config, [f"data.folder={self.data.path}", *self.overrides, *overrides])

    def folder(self, name: str) -> Path:
        """Of the run of this name."""
        return self.out / self.name / name.replace(" ", "-").replace(",", "")

    def report(self, name: str, make: Callable[[Path], object], local_weight: float | None = None) -> Report:
        """Of a model, which is made where it is missing; `local_weight` sets the share of its local scale."""
        folder = self.folder(name)
        kept = folder / ("report.json" if local_weight is None else f"report-local-{local_weight}.json")
        outcomes = folder / OUTCOMES if local_weight is None else None
        if kept.exists() and (outcomes is None or outcomes.exists()):
            return read_report(kept)
        begin = time.monotonic()
        make_once(folder, make)
        model = load_model(folder, self.device, calibrated=False)
        trained = time.monotonic() - begin
        if local_weight is not None:
            assert isinstance(model.engine, DualEngine)
            model.engine.dual.retrieval.local_weight.data.fill_(local_weight)
        options = EvaluateOptions(run=name, windows=model.windows, outcomes=outcomes)
        report = evaluate(model.engine, self.data, "test", self.settings().answer, options=options)
        report.write(kept)
        print(f"<!-- {name}: made in {trained:.0f} s -->", flush=True)
        return report

    def run(self, variant: str, seed: int, local_weight: float | None = None) -> Report:
        """Of one training."""
        config = self.settings(*VARIANTS[variant], f"seed={seed}")
        return self.report(f"{variant} {seed}", partial(train_on, config), local_weight)

    def shared_space(self, seed: int) -> Report:
        """Of the plainest trained model."""
        config, epochs = self.settings(), self.shared_space_epochs or SHARED_SPACE_EPOCHS[self.name]
        plain = SharedSpaceConfig(
            text=config.text.encoder, max_words=config.text.max_words, epochs=epochs, seed=seed
        )
        return self.report(f"shared space {seed}", lambda out: train_shared_space(self.data, out, plain))

    def cosine(self, propagation: float) -> Report | None:
        """Of the untrained cosine; None where sentences and videos share no space."""
        plain = CosineConfig(text=self.settings().text.encoder, propagation=propagation)
        try:
            return self.report(f"cosine {propagation}", lambda out: build_cosine(self.data, out, plain))
        except DataError:
            return None


def make_once(folder: Path, make: Callable[[Path], object]) -> None:
    """Make a model in a folder unless it is there; `make` goes on with one that was stopped."""
    begin = time.monotonic()
    stopped = (folder / CHECKPOINT_FILE).exists() and not (folder / MADE).exists()
    if stopped or not (folder / "run.json").exists():
        make(folder)
        write_json(folder / MADE, {"seconds": round(time.monotonic() - begin, 1)})


def train_on(config: RunConfig, out: Path) -> None:
    """Train, from where an earlier call was stopped."""
    train(config, out, resume=(out / CHECKPOINT_FILE).exists(), quiet=True)


def cell(reports: list[Report], table: str, row: str, metric: str) -> str:
    """Mean ± standard deviation over seeds; of one report the value with its interval."""
    rows = [report.table(table).rows.get(row, {}) for report in reports]
    found = [values[metric] for values in rows if metric in values]
    if not found:
        return "–"
    if len(found) == 1:
        return f"{found[0].value:.1f} [{found[0].low:.1f}, {found[0].high:.1f}]"
    values = [interval.value for interval in found]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def line(name: str, reports: list[Report], model_row: str = "model") -> str:
    """One row of the table; `model_row` stands for the model where a row of another name is asked for."""
    cells = [
        cell(reports, table, model_row if row == "model" else row, metric)
        if row == "model" or model_row == "model"
        else "–"
        for _, table, row, metric in COLUMNS
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def lenient(name: str, reports: list[Report], row: str = "model") -> str:
    """One row of the lenient table: among the first 10 and 100 videos, one of the first N_p spans in it is right."""
    cells = []
    for count in (10, 100):
        found = [
            [
                report.value("VCMR, lenient", row, f"R@{count}, IoU=0.5, N_p={spans}")
                for report in reports
                if row in report.table("VCMR, lenient").rows
            ]
            for spans in (1, 5, 10)
        ]
        cells.append(" / ".join(f"{np.mean(values):.1f}" if values else "–" for values in found))
    return f"| {name} | " + " | ".join(cells) + " |"


def lenient_table(rows: dict[str, list[Report]]) -> list[str]:
    """The first row, with its proposals alone and with its windows, the plainest models, and what knows less."""
    name, first = next(iter(rows.items()))
    return [
        "| row | R@10, N_p = 1 / 5 / 10 | R@100 |",
        "|---|---|---|",
        lenient(name, first),
        lenient(f"{name}, proposals and windows", first, "model, proposals and windows"),
        *(lenient(plain, rows[plain]) for plain in PLAINEST if plain in rows),
        *(lenient(row, first, row) for row in ("retrieval only + blind spans", "chance")),
    ]


def best_baseline(rows: dict[str, list[Report]]) -> str:
    """The plainest model that is best in strict VCMR R@10 at IoU .5, mean over seeds."""
    _, table, row, metric = COLUMNS[5]
    means = {
        name: np.mean([report.value(table, row, metric) for report in rows[name]])
        for name in PLAINEST
        if name in rows
    }
    return max(means, key=lambda name: float(means[name]))


def apart(ours: list[Path], others: list[Path]) -> str:
    """The cells of the mean over our runs less the mean over the others, with intervals; files of outcomes."""
    found = differences(list(map(read_outcomes, ours)), list(map(read_outcomes, others)))
    cells = []
    for _, table, row, metric in COLUMNS:
        interval = found.get(table, {}).get(metric) if row == "model" else None
        cells.append(
            f"{interval.value:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]" if interval else "–"
        )
    return " | ".join(cells)


def main() -> None:
    """Read the arguments, make what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", choices=list(SHARED_SPACE_EPOCHS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", default=["dciml", "no pathway"], choices=list(VARIANTS))
    parser.add_argument("--config", type=Path, help="settings; the short schedule of the corpus")
    parser.add_argument("--device", default="cpu", help="where models are evaluated")
    parser.add_argument("--trained-only", action="store_true", help="leave out the rows without training")
    parser.add_argument("--whole-only", action="store_true", help="leave out the rows of the scales alone")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a setting, key=value")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    data = DataFolder.open(arguments.data)
    config = arguments.config or short_schedule(arguments.corpus)
    corpus = Corpus(
        arguments.corpus, data, config, arguments.out, tuple(arguments.settings), arguments.device
    )

    rows: dict[str, list[Report]] = {}
    for variant in arguments.variants:
        rows[variant] = [corpus.run(variant, seed) for seed in arguments.seeds]
        local = (
            "retrieval.local=none" not in VARIANTS[variant] and corpus.settings().retrieval.local != "none"
        )
        if local and not arguments.whole_only:
            for name, weight in ALONE.items():
                rows[f"{variant}, {name}"] = [corpus.run(variant, seed, weight) for seed in arguments.seeds]
    rows["shared space"] = [corpus.shared_space(seed) for seed in arguments.seeds]
    for propagation in () if arguments.trained_only else (0.0, 0.5):
        untrained = corpus.cosine(propagation)
        if untrained is not None:
            rows["untrained cosine" + (", propagated" if propagation else "")] = [untrained]
    first = next(iter(rows.values()))[:1]
    table = [
        *HEAD,
        *(line(name, reports) for name, reports in rows.items()),
        *(line(name, first, model_row=name) for name in KNOW_LESS),
    ]
    best = best_baseline(rows)
    ours, others = (
        [corpus.folder(report.run) / OUTCOMES for report in rows[name]] for name in (next(iter(rows)), best)
    )
    table.append(f"| {next(iter(rows))} less {best} | {apart(ours, others)} |")
    print("\n".join(table))
    print("\nLenient VCMR, IoU .5, mean over seeds\n\n" + "\n".join(lenient_table(rows)))
    settings = corpus.settings()
    write_figures(
        arguments.json,
        {
            "corpus": arguments.corpus,
            "config": settings.name,
            "epochs": settings.training.epochs,
            "precision": settings.training.precision,
            "text_encoder": settings.text.encoder.partition(":")[0],
            "seeds": arguments.seeds,
            "videos": {split: len(data.videos(split)) for split in data.splits},
            "queries": {split: len(data.pairs(split)) for split in data.splits},
            "cut": data.notes.get("cut"),
            "table": table,
        },
    )


def short_schedule(corpus: str) -> Path:
    """The settings of a corpus that take minutes on a processor."""
    package = ROOT / "src" / "dciml" / "demo" / "demo.yaml"
    return package if corpus == "demo" else ROOT / "configs" / f"{corpus}.yaml"


if __name__ == "__main__":
    main()
