"""The published data sets: names of their files, readers, and the counts that must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dciml.datasets.readers import (
    read_activitynet,
    read_charades_durations,
    read_charades_sta,
    read_cpl,
    read_didemo,
    read_qvhighlights,
    read_tacos,
    read_tvr,
)
from dciml.datasets.records import BadMoments, PastEnd, QueryFile
from dciml.errors import DataError

Reader = Callable[[Path, str, PastEnd, BadMoments], QueryFile]


@dataclass(frozen=True)
class Counts:
    """How many videos and sentences a split holds; `videos` is None where no one has published it."""

    videos: int | None
    sentences: int

    def __str__(self) -> str:
        videos = "" if self.videos is None else f"{self.videos:,} videos, "
        return f"{videos}{self.sentences:,} sentences"

    def agree(self, found: Counts) -> bool:
        """Whether what was found is what must come out."""
        return self.videos in (None, found.videos) and self.sentences == found.sentences


@dataclass(frozen=True)
class PublishedSet:
    """A data set: for each split the file names under which it is released (the first that is there is read).

    Counts are None where no one has published them for that file.
    """

    name: str
    splits: Mapping[str, Mapping[str, Counts | None]]
    read: Reader

    def find(self, folder: Path) -> dict[str, Path]:
        """The file of each split that the folder holds.

        Raises:
            DataError: the folder is not there, or holds none of the files.
        """
        if not folder.is_dir():
            what = "this is a file, not a folder" if folder.exists() else "there is no such folder"
            raise DataError(what, where=folder, mend=f"name the folder of the {self.name} annotations")
        found = {
            split: next(folder / name for name in names if (folder / name).is_file())
            for split, names in self.splits.items()
            if any((folder / name).is_file() for name in names)
        }
        if not found:
            wanted = ", ".join(name for names in self.splits.values() for name in names)
            what = f"the folder holds none of the {self.name} files"
            raise DataError(what, where=folder, mend=f"put at least one of these there: {wanted}")
        return found

    def expected(self, split: str, file: Path) -> Counts | None:
        """The counts that must come out of a file."""
        return self.splits[split][file.name]


def _read_charades(path: Path, split: str, past_end: PastEnd, bad_moments: BadMoments) -> QueryFile:
    durations = read_charades_durations(path.parent / f"Charades_v1_{split}.csv")
    return read_charades_sta(path, split, durations, past_end, bad_moments)


ACTIVITYNET = PublishedSet(
    "activitynet",
    {
        "train": {"train.json": Counts(10_009, 37_421)},
        "val_1": {"val_1.json": Counts(4_917, 17_505)},
        "val_2": {"val_2.json": Counts(4_885, 17_031)},
    },
    read_activitynet,
)
CHARADES_STA = PublishedSet(
    "charades_sta",
    {
        "train": {"charades_sta_train.txt": Counts(5_338, 12_408)},
        "test": {"charades_sta_test.txt": Counts(1_334, 3_720)},
    },
    _read_charades,
)
TACOS = PublishedSet(
    "tacos",
    {
        "train": {"train.json": Counts(75, 9_790)},
        "val": {"val.json": Counts(27, 4_436)},
        "test": {"test.json": Counts(25, 4_001)},
    },
    read_tacos,
)
TVR = PublishedSet(
    "tvr",
    {
        "train": {"tvr_train_release.jsonl": Counts(17_435, 87_175)},
        "val": {"tvr_val_release.jsonl": Counts(2_179, 10_895)},
        "test": {"tvr_test_public_release.jsonl": Counts(1_089, 5_445)},
    },
    read_tvr,
)
QVHIGHLIGHTS = PublishedSet(
    "qvhighlights",
    {
        "train": {"highlight_train_release.jsonl": Counts(7_100, 7_218)},
        "val": {"highlight_val_release.jsonl": Counts(1_519, 1_550)},
        "test": {
            "highlight_test_with_gt.jsonl": Counts(1_529, 1_542),
            "highlight_test_release.jsonl": Counts(1_529, 1_542),
        },
    },
    read_qvhighlights,
)
DIDEMO = PublishedSet(
    "didemo",
    {
        "train": {"train_data.json": Counts(None, 33_005)},
        "val": {"val_data.json": Counts(1_094, 4_180)},
        "test": {"test_data.json": Counts(1_037, 4_021)},
    },
    read_didemo,
)
CPL = PublishedSet(
    "cpl",
    {
        "train": {"train.json": Counts(4_842, 10_602), "train_data.json": None},
        "val": {"val_data.json": None},
        "test": {"test.json": Counts(1_225, 3_158), "test_data.json": None},
    },
    read_cpl,
)

# The PRVR releases leave out videos of ActivityNet that are gone, and call the split that papers report on `val`.
PRVR_COUNTS: Mapping[str, Mapping[str, Counts]] = {
    "activitynet": {"train": Counts(9_043, 33_721), "val": Counts(4_430, 15_753)},
    "charades": {"train": Counts(5_338, 12_408), "val": Counts(1_334, 3_720)},
    "tvr": {"train": Counts(17_435, 87_175), "val": Counts(2_179, 10_895)},
}
