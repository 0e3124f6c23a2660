"""Train and evaluate one configuration with each set of pathways, and print the table.

    python benchmarks/ablation.py CONFIG --data DATA --out RUNS --seeds 1 2 3 --beside "shared space=runs/shared"

The ablation is a list of settings, not code (METHOD §5.1). A run that has its report already is not made again. Models
named by --beside (baselines, say) answer the same queries in the same corpus; the rows that know less come last.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from dciml.config import load_config
from dciml.datasets import DataFolder
from dciml.model_folder import load_model
from dciml.recipes.evaluate import EvaluateOptions, evaluate
from dciml.recipes.report import Report, read_report
from dciml.recipes.train import train

PATHWAYS = (
    "explicit_to_retrieval",
    "implicit_to_retrieval",
    "explicit_to_grounding",
    "implicit_to_grounding",
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "explicit": ("explicit_to_retrieval", "explicit_to_grounding"),
    "implicit": ("implicit_to_retrieval", "implicit_to_grounding"),
    "grounding→retrieval": ("explicit_to_retrieval", "implicit_to_retrieval"),
    "retrieval→grounding": ("explicit_to_grounding", "implicit_to_grounding"),
    "all but explicit retrieval→grounding": tuple(p for p in PATHWAYS if p != "explicit_to_grounding"),
    "all": PATHWAYS,
    "all, joint": PATHWAYS,
}
# Rows of any report.
KNOW_LESS = ("retrieval only + blind spans", "blind spans", "chance", "oracle retrieval")
COLUMNS = (
    ("VR", "model", "R@1"),
    ("VR", "model", "R@10"),
    ("VR", "model", "SumR"),
    ("SVMR", "model", "R@1, IoU=0.5"),
    ("SVMR", "model", "mIoU"),
    ("SVMR", "proposals by reconstruction", "R@1, IoU=0.5"),
    ("SVMR", "proposals by reconstruction", "R@5, IoU=0.5"),
    ("SVMR", "proposals by reconstruction", "mIoU"),
    ("VCMR, strict", "model", "R@1, IoU=0.5"),
    ("VCMR, strict", "model", "R@10, IoU=0.5"),
)


def one_run(arguments: argparse.Namespace, variant: str, seed: int) -> Report:
    """Train and evaluate one variant with one seed, or read the report of an earlier call."""
    folder = arguments.out / f"{variant.replace('→', '-to-').replace(',', '').replace(' ', '-')}-{seed}"
    if (folder / "report.json").exists():
        return read_report(folder)
    overrides = [f"seed={seed}", f"data.folder={arguments.data}", f"name={folder.name}"]
    overrides += [f"mutual.{switch}={str(switch in VARIANTS[variant]).lower()}" for switch in PATHWAYS]
    if variant.endswith("joint"):
        overrides.append("training.mode=joint")
    config = load_config(arguments.config, [*overrides, *arguments.settings])
    begin = time.monotonic()
    train(config, folder, resume=folder.exists(), quiet=True)
    trained = time.monotonic()
    report = measured(folder, folder, variant, arguments)
    print(
        f"{folder.name}: {trained - begin:.0f} s, evaluated in {time.monotonic() - trained:.0f} s", flush=True
    )
    return report


def measured(model_folder: Path, folder: Path, name: str, arguments: argparse.Namespace) -> Report:
    """Evaluate a model and write its report into a folder, or read the report of an earlier call."""
    if (folder / "report.json").exists():
        return read_report(folder)
    model = load_model(model_folder)
    options = EvaluateOptions(run=name, num_queries=arguments.queries, windows=model.windows)
    report = evaluate(model.engine, DataFolder.open(arguments.data), "test", model.answer, options=options)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "report.json")
    return report


def print_table(reports: dict[str, list[Report]]) -> None:
    """Mean over seeds, with the spread between seeds; one seed: with the bootstrap interval."""
    print(
        "| pathways | "
        + " | ".join(f"{t} {m}" + (" †" if r != "model" else "") for t, r, m in COLUMNS)
        + " |"
    )
    print("|---" * (len(COLUMNS) + 1) + "|")
    for variant, runs in reports.items():
        print_row(variant, runs)
    first = next(iter(reports.values()))[:1]
    for row in KNOW_LESS:
        print_row(row, first, model_row=row)


def print_row(name: str, runs: list[Report], model_row: str = "model") -> None:
    """One line; `model_row` is read where a column asks for the model, and only there when it is another one."""
    cells = []
    for table, row, metric in COLUMNS:
        wanted = model_row if row == "model" else row if model_row == "model" else None
        rows = [report.table(table).rows.get(wanted or "", {}) for report in runs]
        intervals = [values[metric] for values in rows if metric in values]
        if not intervals:
            cells.append("–")
        elif len(intervals) > 1:
            values = [interval.value for interval in intervals]
            cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
        else:
            cells.append(f"{intervals[0].value:.1f} [{intervals[0].low:.1f}, {intervals[0].high:.1f}]")
    print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Read the arguments, run what is missing, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[9527])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument(
        "--queries", type=int, help="evaluate on so many queries, drawn by a hash of their ids"
    )
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a setting, key=value")
    parser.add_argument(
        "--beside", action="append", default=[], metavar="NAME=MODEL", help="a further model for the table"
    )
    arguments = parser.parse_args()
    reports = {v: [one_run(arguments, v, seed) for seed in arguments.seeds] for v in arguments.variants}
    for name, _, folder in (item.partition("=") for item in arguments.beside):
        kept = arguments.out / f"beside-{name.replace(' ', '-')}"
        reports[name] = [measured(Path(folder), kept, name, arguments)]
    print_table(reports)


if __name__ == "__main__":
    main()
