"""What a model learned from, and what of that would make its figures worth little; kept beside its weights.

Only hashes are kept: of the ids of videos, of their rows, and of sentences. So a video is known again under another id,
and a model that is passed on tells no names.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from dciml.config import RunConfig
from dciml.datasets import DataFolder
from dciml.errors import ModelError
from dciml.features import FeatureStore
from dciml.folders import TRAINED_ON_FILE
from dciml.names import same_name
from dciml.training import Group, PairData, epoch_groups
from dciml.types import TrainingPair

Hashes = frozenset[int]


@dataclass(frozen=True)
class Overlap:
    """How much of some videos and sentences a model knows: trained on, or held out to choose and calibrate by."""

    num_videos: int
    num_sentences: int
    trained_videos: int
    held_out_videos: int
    trained_sentences: int

    def cautions(self, what: str, then: str) -> list[str]:
        """In sentences.

        Args:
            what: whose videos and sentences they are, for example "the split 'test'".
            then: what follows when videos were trained on.
        """
        sentences = f"{self.trained_sentences} of {self.num_sentences} sentences"
        found = []
        if self.trained_videos:
            beside = f" and {sentences}" if self.num_sentences else ""
            found.append(
                f"{self.trained_videos} of {self.num_videos} videos{beside} of {what} were trained on: {then}"
            )
        elif self.trained_sentences:
            found.append(
                f"{sentences} of {what} stand word for word among those that were trained on, with other videos: "
                "for these the model knew the words before"
            )
        if self.held_out_videos:
            found.append(
                f"{self.held_out_videos} of {self.num_videos} videos of {what} were held out in training, to choose "
                "the weights and to calibrate by: what they show is a little too good"
            )
        return found


@dataclass(frozen=True)
class TrainedOn:
    """Hashes of what a model was trained on, and of what was held out to choose its weights."""

    videos: Hashes = frozenset()
    rows: Hashes = frozenset()
    sentences: Hashes = frozenset()
    held_out_videos: Hashes = frozenset()
    held_out_rows: Hashes = frozenset()

    @classmethod
    def of(
        cls, store: FeatureStore, pairs: Sequence[TrainingPair], held_out: Iterable[str] = ()
    ) -> TrainedOn:
        """Of the pairs of a training, and the ids of the videos that were held out."""
        videos, others = {pair.video_id for pair in pairs}, frozenset(held_out)
        return cls(
            videos=frozenset(map(_of_id, videos)),
            rows=frozenset(_of_rows(store, video_id) for video_id in videos),
            sentences=frozenset(_of_sentence(pair.sentence) for pair in pairs),
            held_out_videos=frozenset(map(_of_id, others)),
            held_out_rows=frozenset(_of_rows(store, video_id) for video_id in others),
        )

    def overlap(self, store: FeatureStore, video_ids: Sequence[str], sentences: Sequence[str]) -> Overlap:
        """How much of these the model knows. A video is known by its id or by its rows."""
        trained, held_out = 0, 0
        for video_id in video_ids:
            name, rows = _of_id(video_id), _of_rows(store, video_id)
            if name in self.videos or rows in self.rows:
                trained += 1
            elif name in self.held_out_videos or rows in self.held_out_rows:
                held_out += 1
        return Overlap(
            num_videos=len(video_ids),
            num_sentences=len(sentences),
            trained_videos=trained,
            held_out_videos=held_out,
            trained_sentences=sum(_of_sentence(sentence) in self.sentences for sentence in sentences),
        )

    def write(self, folder: Path) -> None:
        """Put it into a model folder, atomically."""
        import torch

        from dciml.training import save_tensors

        tensors = {
            field.name: torch.from_numpy(np.array(sorted(getattr(self, field.name)), dtype=np.int64))
            for field in fields(self)
        }
        save_tensors(folder / TRAINED_ON_FILE, tensors, {})


def read_trained_on(folder: Path) -> TrainedOn | None:
    """What a model was trained on; None where its folder does not say, as folders of earlier versions.

    Raises:
        ModelError: the file is damaged.
    """
    from dciml.training import load_tensors

    file = folder / TRAINED_ON_FILE
    if not file.exists():
        return None
    tensors, _ = load_tensors(file)
    if tensors.keys() != {field.name for field in fields(TrainedOn)}:
        raise ModelError(f"{file}: damaged, it does not say what was trained on; restore it")
    return TrainedOn(**{name: frozenset(tensor.flatten().tolist()) for name, tensor in tensors.items()})


def known_already(
    folder: Path,
    store: FeatureStore,
    video_ids: Sequence[str],
    sentences: Sequence[str] = (),
    *,
    what: str,
    then: str,
    held_out_too: bool = True,
) -> list[str]:
    """Cautions about what the model in a folder knows of these videos and sentences already.

    Args:
        what, then: as in `Overlap.cautions`.
        held_out_too: about videos that were held out as well.
    Raises:
        ModelError: the record of the training is damaged.
    """
    known = read_trained_on(folder)
    if known is None:
        return [
            f"the model in {folder} does not say what it was trained on, so nothing was checked: see that it was not "
            f"trained on {what}"
        ]
    found = known.overlap(store, video_ids, sentences)
    return (found if held_out_too else replace(found, held_out_videos=0)).cautions(what, then)


def shared_with_training(data: DataFolder) -> list[str]:
    """Cautions about videos of a data folder that are in a split to train on (`train…`) and in another one as well."""
    found = []
    for training in (split for split in data.splits if split.startswith("train")):
        known = TrainedOn.of(data.store, data.pairs(training))
        for split in data.splits:
            if split.startswith("train"):
                continue
            videos = [video.video_id for video in data.videos(split)]
            shared = known.overlap(data.store, videos, ()).trained_videos
            if shared:
                found.append(
                    f"{shared} of {len(videos)} videos of the split {split!r} are in {training!r} too: what is "
                    "measured on them tells nothing of new videos"
                )
    return found


def _of_id(video_id: str) -> int:
    return _hash(same_name(video_id))


def _of_rows(store: FeatureStore, video_id: str) -> int:
    entry = store.entry(video_id)
    return _hash(f"{store.manifest.width} {entry.rows} {entry.crc32}")


def _of_sentence(sentence: str) -> int:
    """Of its words, whatever their case and what stands between them."""
    plain = unicodedata.normalize("NFKC", sentence).casefold()
    return _hash(" ".join(re.findall(r"\w+", plain)) or plain.strip())


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


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
        size = training.draw.batch_videos
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
