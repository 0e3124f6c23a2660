"""Train and evaluate one configuration with each set of pathways, and print the table.

    python benchmarks/ablation.py CONFIG --data DATA --out RUNS --seeds 1 2 3

The ablation is a list of settings, not code (METHOD §4). A run that has its report already is not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from dciml.build import load_model
from dciml.config import load_config
from dciml.datasets.folder import DataFolder
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
    "all": PATHWAYS,
    "all, joint": PATHWAYS,
}
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
    folder = arguments.out / f"{variant.replace('→', '-to-').replace(', ', '-')}-{seed}"
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
    model = load_model(folder)
    options = EvaluateOptions(run=variant, num_queries=arguments.queries, windows=model.windows)
    report = evaluate(model.engine, DataFolder.open(arguments.data), "test", config.answer, options=options)
    report.write(folder / "report.json")
    print(
        f"{folder.name}: {trained - begin:.0f} s, evaluated in {time.monotonic() - trained:.0f} s", flush=True
    )
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
        cells = []
        for table, row, metric in COLUMNS:
            intervals = [report.table(table).rows[row][metric] for report in runs]
            values = [interval.value for interval in intervals]
            if len(values) > 1:
                cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
            else:
                cells.append(f"{values[0]:.1f} [{intervals[0].low:.1f}, {intervals[0].high:.1f}]")
        print(f"| {variant} | " + " | ".join(cells) + " |")


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
    arguments = parser.parse_args()
    reports = {v: [one_run(arguments, v, seed) for seed in arguments.seeds] for v in arguments.variants}
    print_table(reports)


if __name__ == "__main__":
    main()
