"""What of a run's data would make its weights, or the choice among them, worth little; said before the run begins."""

from __future__ import annotations

from dciml.config import RunConfig
from dciml.features.store import FeatureStore
from dciml.training.loader import Group, PairData, epoch_groups

ENOUGH_TO_CHOOSE = 10
"""Held-out videos below which they choose nothing: among fewer, R@10 and R@100 are always 100 %."""
NOTHING = "a video is told from the others of its batch, so this teaches retrieval nothing"


def keeps_last(config: RunConfig, held_out: PairData) -> bool:
    """Whether the weights of the last epoch make the model: as the settings say, or too little is held out."""
    return config.training.keep == "last" or len(held_out.by_video()) < ENOUGH_TO_CHOOSE


def training_cautions(config: RunConfig, training: PairData, held_out: PairData, processes: int) -> list[str]:
    """Sentences for the user; [] where all is well."""
    return [*_of_batches(training, processes), *_of_choice(config, held_out)]


def _of_batches(training: PairData, processes: int) -> list[str]:
    if len(training.by_video()) == 1:
        return [f"one single video is trained on; {NOTHING}: train on more videos"]
    batches = _whole_batches(training, processes)
    videos = [{training.pairs[members[0]].video_id for _, members in batch} for batch in batches]
    alone = sum(len(names) == 1 for names in videos)
    if alone:
        hold = "holds" if alone == 1 else "hold"
        size = training.config.training.batch_videos
        return [
            f"{alone} of the {len(batches)} batches of an epoch {hold} one video alone; {NOTHING}: choose another "
            f"training.batch_videos, it is {size}"
        ]
    largest = max(videos, key=len, default=set())
    if len({_content(training.store, name) for name in largest}) == 1:
        return [
            f"all {len(largest)} videos of a batch have the very same features; {NOTHING}: see how the features were "
            "made"
        ]
    return []


def _whole_batches(training: PairData, processes: int) -> list[list[Group]]:
    """The batches of an epoch over all processes: negatives come from all of them."""
    shares = [epoch_groups(training, 0, rank, processes) for rank in range(processes)]
    return [[group for share in batch for group in share] for batch in zip(*shares, strict=True)]


def _of_choice(config: RunConfig, held_out: PairData) -> list[str]:
    found = len(held_out.by_video())
    if found >= ENOUGH_TO_CHOOSE or config.training.keep == "last":
        return []
    return [
        f"{found} video(s) are held out, too few to choose an epoch by (SumR over so few says nothing): the weights "
        f"of the last epoch are kept; hold out {ENOUGH_TO_CHOOSE} at least (data.validation_fraction), or set "
        "training.keep to last"
    ]


def _content(store: FeatureStore, video_id: str) -> tuple[int, int]:
    entry = store.entry(video_id)
    return entry.rows, entry.crc32
