"""Batches for training. What a batch holds is a function of (seed, epoch, place), so a run can go on from any step."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dciml.features import EncodedCorpus, FeatureStore, Vocabulary
from dciml.method import Batch, BatchSizes, collate_queries, collate_videos, hidden_positions
from dciml.types import TrainingPair

Item = TypeVar("Item")
Started = TypeVar("Started")
Begun = tuple[Batch, Batch, torch.cuda.Event]
"""A batch on the host and on the device, and the end of its copy."""
Group = tuple[str, list[int]]
"""The id of a video, or of a window of a long one, and the indices of the pairs that go with it."""
Chosen = Mapping[int, str]
"""The window of each pair, by its index, of a long video."""


@dataclass(frozen=True)
class Draw:
    """What decides which pairs meet in a batch: videos a process, sentences a video (None: all), and the seed."""

    batch_videos: int
    max_sentences_per_video: int | None
    seed: int


@dataclass(frozen=True)
class PairData:
    """Pairs with their encoded sentences; sentence i of `sentences` belongs to pair i.

    `windows` holds the ids of the windows of each long video; they too are videos of `store`. `draw` says what of
    all this makes the batches of an epoch.
    """

    store: FeatureStore
    pairs: tuple[TrainingPair, ...]
    sentences: EncodedCorpus
    vocabulary: Vocabulary
    sizes: BatchSizes
    draw: Draw
    windows: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def by_video(self) -> dict[str, list[int]]:
        """Indices of each video's pairs, in the order of the records."""
        groups: dict[str, list[int]] = {}
        for index, pair in enumerate(self.pairs):
            groups.setdefault(pair.video_id, []).append(index)
        return groups

    def grouped(self, video_id: str, members: list[int], chosen: Chosen) -> list[Group]:
        """The groups of a video's pairs: one, or for a long video one a pair, with the window that was chosen.

        Where nothing is chosen (to count them), the first window stands in.
        """
        windows = self.windows.get(video_id)
        if windows is None:
            return [(video_id, members)]
        return [(chosen.get(index, windows[0]), [index]) for index in members]

    def collate(self, groups: Sequence[tuple[str, Sequence[int]]], epoch: int) -> Batch:
        """A batch of some videos and some of their pairs; `epoch` (and the seed) decides which words are hidden."""
        sizes = self.sizes
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
                num_clips=sizes.num_clips,
                max_frames=sizes.max_frames,
            ),
            collate_queries(
                [self.pairs[index].query_id for index in indices],
                encoded,
                self.vocabulary,
                max_words=sizes.max_words,
                hidden=hidden,
            ),
            torch.tensor(owner),
        )

    def _hidden(self, index: int, words: Sequence[str], epoch: int) -> NDArray[np.int64]:
        weights = self.vocabulary.weights(words[: self.sizes.max_words])
        rng = np.random.default_rng([self.draw.seed, epoch, index])
        return hidden_positions(np.asarray(weights, dtype=np.float64), rng)


def epoch_groups(
    data: PairData, epoch: int, rank: int, world_size: int, chosen: Chosen | None = None
) -> list[list[Group]]:
    """The epoch's batches as (video, pair indices) groups, this process's share of each.

    All processes shuffle alike and take consecutive parts, so two processes with half the batch see what one with the
    whole batch sees, in the same order. A last batch with fewer videos than processes is left out. How many batches
    there are does not depend on `chosen`.
    """
    rng = np.random.default_rng([data.draw.seed, epoch])
    groups = list(data.by_video().items())
    order = rng.permutation(len(groups))
    most = data.draw.max_sentences_per_video
    drawn = []
    for place in order:
        video_id, members = groups[place]
        if most is not None and len(members) > most:
            members = sorted(rng.choice(members, size=most, replace=False).tolist())
        drawn.append(data.grouped(video_id, members, chosen or {}))
    size = data.draw.batch_videos * world_size
    batches = []
    for everyone in _dealt(drawn, size, rng) if data.windows else _cut(drawn, size):
        if len(everyone) >= world_size:
            batches.append(
                everyone[len(everyone) * rank // world_size : len(everyone) * (rank + 1) // world_size]
            )
    return batches


def _cut(drawn: Sequence[Sequence[Group]], size: int) -> list[list[Group]]:
    every = [group for groups in drawn for group in groups]
    return [every[start : start + size] for start in range(0, len(every), size)]


def _dealt(drawn: Sequence[Sequence[Group]], size: int, rng: np.random.Generator) -> list[list[Group]]:
    """Batches of equal size, give or take one, with the groups of each video in as many of them as there are.

    A window of the same video may show what a sentence tells, so it should not be a negative.
    """
    batches: list[list[Group]] = [[] for _ in range(-(-sum(map(len, drawn)) // size))]
    for groups in drawn:
        fullness = np.array([len(batch) for batch in batches])
        emptiest_first = np.lexsort((rng.random(len(batches)), fullness))
        for number, group in enumerate(groups):
            batches[emptiest_first[number % len(batches)]].append(group)
    return batches


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device; on a GPU the next one is copied there while the present one is used.

    A GPU copies beside its work only from pinned memory (`Batch.pinned`).
    """
    if device.type == "cuda":
        return one_ahead(batches, *_beside_the_work(device))
    return (batch.to(device) for batch in batches)


def _beside_the_work(device: torch.device) -> tuple[Callable[[Batch], Begun], Callable[[Begun], Batch]]:
    """How to begin a batch's copy in a stream of its own, and how to make the present stream wait for its end."""
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: Batch) -> Begun:
        with torch.cuda.stream(copies):
            there = batch.to(device)
            return batch, there, copies.record_event()

    def end(begun: Begun) -> Batch:
        _, there, copied = begun
        work = torch.cuda.current_stream(device)
        work.wait_event(copied)
        for tensor in there.tensors():
            tensor.record_stream(
                work
            )  # so that its memory is not given to the next copy before the work is done
        return there

    return begin, end


def one_ahead(
    items: Iterator[Item], begin: Callable[[Item], Started], end: Callable[[Started], Item]
) -> Iterator[Item]:
    """`end(begin(item))` of each, where the next one has begun before the present one is handed out.

    An error of `items` or `begin` comes in the place of its item, after all those before it.
    """
    waiting: deque[Started] = deque()
    error: Exception | None = None
    while True:
        try:
            while error is None and len(waiting) < 2:
                waiting.append(begin(next(items)))
        except StopIteration as last:
            error = last
        except Exception as failed:
            error = failed
        if not waiting:
            if error is None or isinstance(error, StopIteration):
                return
            raise error
        yield end(waiting.popleft())


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
