"""How many pairs does it take? The demo's generator with more and more training videos, one row of the table a model.

    python benchmarks/pairs.py --out runs/pairs --train 220 700 2000 --seeds 1

The smaller corpora are the first videos of the largest, and all are tested on the same 100 videos. All models see about
as many batches at each size. Videos are drawn and read once, and a run that has its report is not made again.
`--plot FILE` writes the picture (PNG or SVG, by matplotlib).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from machine import write_figures
from results import ALONE, COLUMNS, HEAD, Corpus, line, short_schedule

from dciml.datasets import DataFolder, write_data_folder
from dciml.demo import CorpusSize, make_data_folder, make_videos, plan_corpus
from dciml.features import BuiltinVisualEncoder, FeatureStoreWriter
from dciml.recipes.report import Report

NUM_TEST = 100
SEED = 11  # another corpus than the demo's, whose videos settings were chosen on
USUAL_VIDEOS, USUAL_EPOCHS, FEWEST_EPOCHS = 220, 108, 12
ROWS = ("dciml", *(f"dciml, {name}" for name in ALONE), "shared space")
SHOWN = {"VR R@1": 0, "SVMR R@1, IoU ≥ .5": 2, "strict VCMR R@1, IoU ≥ .5": 4}


def drawn_corpus(out: Path, size: CorpusSize, seed: int, workers: int) -> DataFolder:
    """Draw and read the videos of a corpus of the demo's generator, unless they are there."""
    stories = plan_corpus(size, seed)
    make_videos(stories, out / "videos", workers)
    return make_data_folder(stories, out / "videos", out / "data", BuiltinVisualEncoder(), workers)


def first_videos(whole: DataFolder, num_train: int, path: Path) -> DataFolder:
    """A data folder of the first training videos of another, with its test videos."""
    if num_train == len(whole.videos("train")):
        return whole
    if (path / "data.json").exists():
        return DataFolder.open(path)
    videos = [*whole.videos("train")[:num_train], *whole.videos("test")]
    kept = {video.video_id for video in videos}

    def copy_rows(folder: Path) -> None:
        with FeatureStoreWriter(folder, whole.store.manifest) as writer:
            for video in videos:
                writer.append(video.video_id, whole.store.rows(video.video_id), video.duration_seconds)

    queries = {split: [q for q in whole.queries(split) if q.video_id in kept] for split in ("train", "test")}
    return write_data_folder(path, whole.name, queries, videos, copy_rows, notes=dict(whole.notes))


def epochs_for(num_videos: int, usual: int) -> int:
    """As many that a model sees about as many batches as on the demo corpus; no fewer than 12."""
    return max(FEWEST_EPOCHS, round(usual * USUAL_VIDEOS / num_videos))


def rows_of(corpus: Corpus, seeds: Sequence[int]) -> dict[str, list[Report]]:
    """The reports of every row, by its name."""
    rows = {"dciml": [corpus.run("dciml", seed) for seed in seeds]}
    for name, weight in ALONE.items():
        rows[f"dciml, {name}"] = [corpus.run("dciml", seed, weight) for seed in seeds]
    rows["shared space"] = [corpus.shared_space(seed) for seed in seeds]
    return rows


def plot(found: Mapping[int, Mapping[str, list[Report]]], file: Path) -> None:
    """One panel a protocol: the mean over seeds against the number of training sentences, each row a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(SHOWN), figsize=(11, 3.6), constrained_layout=True)
    for panel, (heading, place) in zip(panels, SHOWN.items(), strict=True):
        _, table, row, metric = COLUMNS[place]
        for name, style in zip(ROWS, ("o-", "s--", "^:", "D-."), strict=True):
            means = [
                sum(report.table(table).rows[row][metric].value for report in rows[name]) / len(rows[name])
                for rows in found.values()
            ]
            panel.plot(list(found), means, style, label=name)
        panel.set(title=heading, xscale="log", xlabel="training videos", xticks=list(found))
        panel.set_xticklabels([str(number) for number in found])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("percent")
    panels[0].legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Read the arguments, make what is missing, print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, nargs="+", default=[220, 700, 2000], help="training videos")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--workers", type=int, default=2, help="processes that draw and read videos")
    parser.add_argument("--plot", type=Path, help="a file for the picture")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    sizes = sorted(arguments.train)
    size = CorpusSize(sizes[-1], NUM_TEST)
    whole = drawn_corpus(arguments.out, size, SEED, arguments.workers)
    found: dict[int, dict[str, list[Report]]] = {}
    tables: dict[str, list[str]] = {}
    for number in sizes:
        data = first_videos(whole, number, arguments.out / f"data-{number}")
        epochs = epochs_for(number, USUAL_EPOCHS)
        corpus = Corpus(
            "demo",
            data,
            short_schedule("demo"),
            arguments.out / str(number),
            (f"training.epochs={epochs}",),
            shared_space_epochs=epochs_for(number, 60),
        )
        found[number] = rows_of(corpus, arguments.seeds)
        tables[str(number)] = [line(name, reports) for name, reports in found[number].items()]
        print(f"\n{number} training videos, {len(data.pairs('train'))} sentences, {epochs} epochs\n")
        print("\n".join((*HEAD, *tables[str(number)])), flush=True)
    if arguments.plot:
        plot(found, arguments.plot)
    write_figures(arguments.json, {"train": sizes, "seeds": arguments.seeds, "tables": tables})


if __name__ == "__main__":
    main()
