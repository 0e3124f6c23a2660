"""Batches for training. What a batch holds is a function of (seed, epoch, place), so a run can go on from any step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dciml.batching import Batch, collate_queries, collate_videos, hidden_positions
from dciml.config import RunConfig
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.store import FeatureStore
from dciml.features.vocabulary import Vocabulary
from dciml.types import TrainingPair

Item = TypeVar("Item")


@dataclass(frozen=True)
class PairData:
    """Pairs with their encoded sentences; sentence i of `sentences` belongs to pair i."""

    store: FeatureStore
    pairs: tuple[TrainingPair, ...]
    sentences: EncodedCorpus
    vocabulary: Vocabulary
    config: RunConfig

    def by_video(self) -> dict[str, list[int]]:
        """Indices of each video's pairs, in the order of the records."""
        groups: dict[str, list[int]] = {}
        for index, pair in enumerate(self.pairs):
            groups.setdefault(pair.video_id, []).append(index)
        return groups

    def collate(self, groups: Sequence[tuple[str, Sequence[int]]], epoch: int) -> Batch:
        """A batch of some videos and some of their pairs; `epoch` (and the seed) decides which words are hidden."""
        settings = self.config
        indices = [index for _, members in groups for index in members]
        encoded = [self.sentences.get(index) for index in indices]
        hidden = [
            self._hidden(index, sentence.words, epoch)
            for index, sentence in zip(indices, encoded, strict=True)
        ]
        owner = [row for row, (_, members) in enumerate(groups) for _ in members]
        return Batch(
            collate_videos(
                self.store,
                [video_id for video_id, _ in groups],
                num_clips=settings.retrieval.num_clips,
                max_frames=settings.retrieval.max_frames,
            ),
            collate_queries(
                [self.pairs[index].query_id for index in indices],
                encoded,
                self.vocabulary,
                max_words=settings.text.max_words,
                hidden=hidden,
            ),
            torch.tensor(owner),
        )

    def _hidden(self, index: int, words: Sequence[str], epoch: int) -> NDArray[np.int64]:
        weights = self.vocabulary.weights(words[: self.config.text.max_words])
        rng = np.random.default_rng([self.config.seed, epoch, index])
        return hidden_positions(np.asarray(weights, dtype=np.float64), rng)


def epoch_groups(data: PairData, epoch: int, rank: int, world_size: int) -> list[list[tuple[str, list[int]]]]:
    """The epoch's batches as (video, pair indices) groups, this process's share of each.

    All processes shuffle alike and take consecutive parts, so two processes with half the batch see what one with the
    whole batch sees, in the same order. A last batch with fewer videos than processes is left out.
    """
    rng = np.random.default_rng([data.config.seed, epoch])
    groups = list(data.by_video().items())
    order = rng.permutation(len(groups))
    most = data.config.training.max_sentences_per_video
    chosen = []
    for place in order:
        video_id, members = groups[place]
        if most is not None and len(members) > most:
            members = sorted(rng.choice(members, size=most, replace=False).tolist())
        chosen.append((video_id, members))
    size = data.config.training.batch_videos * world_size
    batches = []
    for start in range(0, len(chosen), size):
        everyone = chosen[start : start + size]
        if len(everyone) >= world_size:
            batches.append(
                everyone[len(everyone) * rank // world_size : len(everyone) * (rank + 1) // world_size]
            )
    return batches


def prefetched(items: Iterator[Item], depth: int = 3) -> Iterator[Item]:
    """Make the next items in a thread while the present one is used; its errors surface here."""
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed to the reader, who raises it
            put((None, error))

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        stop.set()
