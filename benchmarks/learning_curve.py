"""How long does the reconstruction learn? What held-out first proposals are worth, against updates of grounding.

    python benchmarks/learning_curve.py qvh_captions=data/qvh_captions flickr_stitched=data/flickr_stitched \\
        --out runs/curve --plot curve.png

The short schedule of each corpus, made longer, with what feeds the grounding branch (docs/decisions/0048), without
anchors and without what retrieval teaches but for the warm start: proposals know what the reconstruction tells them.
The moments of held-out training videos are read here, and judge no weights. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from results import OFF, make_once, short_schedule, train_on

from dciml.config import RunConfig, load_config
from dciml.datasets import DataFolder, split_off_validation

FED = (
    "grounding.anchors=false",
    "grounding.content_weight=4",
    "grounding.negatives=other_video",
    "weights.proposal_diversity=1",
    "mutual.warm_start=true",
    *OFF,
)
POINTS = 12


@dataclass(frozen=True)
class Curve:
    """Of one run: after how many updates of grounding, mean IoU in percent of the first proposal, and the loss."""

    updates: list[int]
    first_proposal: list[float]
    reconstruct: list[float]


def long_run(data: DataFolder, corpus: str, updates: int, each: int, sentences: int) -> RunConfig:
    """The settings of about so many updates of grounding, `each` a batch, of so many sentences."""
    config = load_config(short_schedule(corpus), [f"data.folder={data.path}"])
    kept, _ = split_off_validation(data.pairs("train"), config.data.validation_fraction, config.seed)
    batches = math.ceil(len({pair.video_id for pair in kept}) / config.training.batch_videos)
    epochs = math.ceil(updates / (batches * each))
    longer = (
        f"training.epochs={epochs}",
        f"training.validate_every={max(1, epochs // POINTS)}",
        f"training.grounding_updates={each}",
        f"training.grounding_queries={sentences}",
        "training.keep=last",
        "data.validation_moments=true",
        f"mutual.from_epoch={max(1, epochs // 20)}",
    )
    return load_config(short_schedule(corpus), [f"data.folder={data.path}", *FED, *longer])


def curve_of(run: Path, each: int) -> Curve:
    """What a run wrote of itself: TensorBoard's scalars."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    losses = events.Scalars("loss/reconstruct")
    held_out = events.Scalars("held_out/grounding")
    steps_an_epoch = len({event.step for event in losses}) / (held_out[-1].step + 1)
    updates, loss = [], []
    for event in held_out:
        end = round((event.step + 1) * steps_an_epoch)
        updates.append(end * each)
        near = [other.value for other in losses if end - steps_an_epoch <= other.step < end]
        loss.append(float(np.mean(near)))
    return Curve(updates, [event.value for event in held_out], loss)


def plot(curves: dict[str, Curve], file: Path) -> None:
    """Two panels, a line for each corpus."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for name, curve in curves.items():
        panels[0].plot(curve.updates, curve.first_proposal, "o-", label=name)
        panels[1].plot(curve.updates, curve.reconstruct, "o-", label=name)
    panels[0].set(title="held-out first proposal, mean IoU in percent", xlabel="updates of grounding")
    panels[1].set(title="reconstruction loss in training, nats a word", xlabel="updates of grounding")
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Read the arguments, train what is missing, print a row for each point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="+", metavar="CORPUS=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--each", type=int, default=3, help="updates of grounding for each of retrieval")
    parser.add_argument("--sentences", type=int, default=32, help="of an update")
    parser.add_argument("--plot", type=Path, help="a file for the picture")
    arguments = parser.parse_args()
    curves = {}
    for name, _, folder in (given.partition("=") for given in arguments.corpora):
        data, out = DataFolder.open(Path(folder)), arguments.out / name
        config = long_run(data, name, arguments.updates, arguments.each, arguments.sentences)
        make_once(out, partial(train_on, config))
        curves[name] = curve_of(out, arguments.each)
        print(f"\n{name}: {config.training.epochs} epochs\n\n| updates | mean IoU | loss |\n|---|---|---|")
        for row in zip(
            curves[name].updates, curves[name].first_proposal, curves[name].reconstruct, strict=True
        ):
            print("| {:,} | {:.1f} | {:.3f} |".format(*row), flush=True)
    if arguments.plot:
        plot(curves, arguments.plot)


if __name__ == "__main__":
    main()
