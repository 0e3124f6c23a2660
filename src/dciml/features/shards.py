"""Extraction shared out to several machines: which videos are whose, and the stores joined afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dciml.errors import DataError
from dciml.features.store import FeatureStore, FeatureStoreWriter
from dciml.files import atomic_folder, refuse_taken

Value = TypeVar("Value")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1 on.

    >>> Shard.parse("2/8")
    Shard(number=2, count=8)
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard is i/n with 1 ≤ i ≤ n, not {self.number}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n". Raises ValueError."""
        number, mark, count = text.partition("/")
        if not (mark and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"a shard is i/n with 1 ≤ i ≤ n, not {text!r}")
        return cls(int(number), int(count))

    def of(self, items: Mapping[str, Value]) -> dict[str, Value]:
        """The items of this shard. It depends on an item's id alone, so every machine agrees and none need talk."""
        return {key: value for key, value in items.items() if _hash(key) % self.count == self.number - 1}

    def store_path(self, out: Path) -> Path:
        """Where this shard's store lies: OUT.shards/2-of-8."""
        return out.with_name(f"{out.name}.shards") / f"{self.number}-of-{self.count}"


def merge_stores(paths: Sequence[Path], out: Path) -> FeatureStore:
    """Copy stores of one encoder into a new one, which appears whole or not at all.

    A video that several stores hold must be the same in all.

    Raises:
        DataError: `out` exists, a store is damaged, the manifests differ, or a video comes twice and differs.
    """
    refuse_taken(out)
    stores = [FeatureStore.open(path) for path in paths]
    for store in stores[1:]:
        if store.manifest != stores[0].manifest:
            raise DataError(
                f"the store holds {store.manifest}, and {stores[0].path} holds {stores[0].manifest}",
                where=store.path,
                mend="merge only stores that were made with the same encoders and rate",
            )
    for store in stores:
        for problem in store.verify():
            raise DataError(problem, where=store.path, mend="extract this shard again")
    with atomic_folder(out) as temporary:
        _copy(stores, temporary)
    return FeatureStore.open(out)


def _copy(stores: Iterable[FeatureStore], out: Path) -> None:
    first: dict[str, FeatureStore] = {}
    for store in stores:
        with FeatureStoreWriter(out, store.manifest, commit_every=256) as writer:
            for video_id in store.video_ids:
                entry = store.entry(video_id)
                if video_id not in first:
                    first[video_id] = store
                    rows = store.rows(video_id)
                    writer.append(video_id, rows, entry.duration_seconds, entry.source, stamp=entry.stamp)
                    continue
                other = first[video_id].entry(video_id)
                if (entry.crc32, entry.rows, entry.duration_seconds) != (
                    other.crc32,
                    other.rows,
                    other.duration_seconds,
                ):
                    raise DataError(
                        f"the video {video_id!r} is in {first[video_id].path} too, with other rows",
                        where=store.path,
                        mend="give the videos different ids with --ids path, or leave one store out",
                    )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
