"""A batch: some videos and the sentences that belong to them, padded, with masks and indices that say what is what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dciml.features import (
    EncodedSentence,
    FeatureStore,
    Vocabulary,
    clip_centers,
    frame_rows,
    l2_normalize,
    mean_pool,
)

FRAMES_BUCKET, WORDS_BUCKET, SENTENCES_BUCKET = 32, 8, 16
"""The sizes that `Batch.in_buckets` gives are multiples of these."""


@dataclass(frozen=True)
class VideoBatch:
    """B videos. Rows are L2-normalised; `frame_mask` is True at real rows.

    `clip_centers` is the middle of the rows that a clip is made of, in unit time.
    """

    video_ids: tuple[str, ...]
    clips: Float[Tensor, "videos clips width"]
    clip_centers: Float[Tensor, "videos clips"]
    frames: Float[Tensor, "videos frames width"]
    frame_mask: Bool[Tensor, "videos frames"]

    def to(self, device: torch.device) -> VideoBatch:
        """The same on another device."""
        return _each_tensor(self, lambda x: x.to(device, non_blocking=True))

    def at(self, places: Int[Tensor, " chosen"]) -> VideoBatch:
        """The videos at these places, which the host knows."""
        there, ids = places.to(self.frames.device, non_blocking=True), places.tolist()
        return _each_tensor(self, lambda x: x[there], video_ids=tuple(self.video_ids[i] for i in ids))

    def padded(self, num_frames: int) -> VideoBatch:
        """With so many frames, or as many as there are."""
        room = max(0, num_frames - self.frames.shape[1])
        return replace(
            self, frames=F.pad(self.frames, (0, 0, 0, room)), frame_mask=F.pad(self.frame_mask, (0, room))
        )


@dataclass(frozen=True)
class QueryBatch:
    """Q sentences; a sentence may come several times, with the same id. `query_ids` has as many as the losses read:
    behind them may stand copies of the last one, which only make the batch as large as others are.

    `words` may be contextual and goes to the retrieval branch only; `static_words` holds each word by itself and is
    all that the grounding branch sees, with `word_ids` of the same words in the same order. `hidden_words` is True
    where the reconstruction's input is replaced by the mask vector. `sentences` are vectors in the space of the video
    rows, L2-normalised; None where the text encoder has none. `anchors` are centre, width and share of the spans at
    which the proposals of each sentence begin in its own video, best first; None: they begin anywhere.
    `content_words` is True at nouns, verbs, adjectives and adverbs; None: not known, all words are alike.
    """

    query_ids: tuple[str, ...]
    words: Float[Tensor, "queries words text_width"]
    static_words: Float[Tensor, "queries words static_width"]
    word_mask: Bool[Tensor, "queries words"]
    word_ids: Int[Tensor, "queries words"]
    hidden_words: Bool[Tensor, "queries words"]
    sentences: Float[Tensor, "queries sentence_width"] | None = None
    anchors: Float[Tensor, "queries proposals 3"] | None = None
    content_words: Bool[Tensor, "queries words"] | None = None

    def to(self, device: torch.device) -> QueryBatch:
        """The same on another device."""
        return _each_tensor(self, lambda x: x.to(device, non_blocking=True))

    def at(self, places: Int[Tensor, " chosen"]) -> QueryBatch:
        """The sentences at these places, which the host knows; one may come again."""
        there, ids = places.to(self.word_ids.device, non_blocking=True), places.tolist()
        return _each_tensor(self, lambda x: x[there], query_ids=tuple(self.query_ids[i] for i in ids))

    def padded(self, num_sentences: int, num_words: int) -> QueryBatch:
        """With so many sentences and words in each, or as many as there are."""
        more, room = max(0, num_sentences - len(self.word_ids)), max(0, num_words - self.word_ids.shape[1])
        wide = replace(
            self,
            words=F.pad(self.words, (0, 0, 0, room)),
            static_words=F.pad(self.static_words, (0, 0, 0, room)),
            word_mask=F.pad(self.word_mask, (0, room)),
            word_ids=F.pad(self.word_ids, (0, room)),
            hidden_words=F.pad(self.hidden_words, (0, room)),
            content_words=None if self.content_words is None else F.pad(self.content_words, (0, room)),
        )
        return _each_tensor(wide, lambda x: _repeat_last(x, more))

    def distinct(self) -> tuple[QueryBatch, Int[Tensor, " queries"] | None]:
        """Each sentence once, and where each query finds its own; None: no id comes twice, and all stay in place."""
        first: dict[str, int] = {}
        for place, query_id in enumerate(self.query_ids):
            first.setdefault(query_id, place)
        if len(first) == len(self.query_ids):
            return self, None
        device = self.word_ids.device
        number = {query_id: rank for rank, query_id in enumerate(first)}
        reads = torch.tensor([number[query_id] for query_id in self.query_ids], device=device)
        return self.at(torch.tensor(list(first.values()), device=device)), reads


@dataclass(frozen=True)
class Batch:
    """Videos, sentences, and for each sentence the index of its own video inside this batch."""

    videos: VideoBatch
    queries: QueryBatch
    video_of_query: Int[Tensor, " queries"]

    @property
    def num_sentences(self) -> int:
        """How many the losses read."""
        return len(self.queries.query_ids)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        owner = self.video_of_query.to(device, non_blocking=True)
        return Batch(self.videos.to(device), self.queries.to(device), owner)

    def pinned(self) -> Batch:
        """The same in memory from which a GPU copies by itself."""
        videos = _each_tensor(self.videos, lambda x: x.pin_memory())
        queries = _each_tensor(self.queries, lambda x: x.pin_memory())
        return Batch(videos, queries, self.video_of_query.pin_memory())

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        values = (*vars(self.videos).values(), *vars(self.queries).values(), self.video_of_query)
        return (value for value in values if isinstance(value, Tensor))

    def at(self, places: Int[Tensor, " chosen"], *, all_videos: bool = False) -> Batch:
        """The sentences at these places, which the host knows, with their own videos alone or with all of them."""
        there = places.to(self.video_of_query.device, non_blocking=True)
        if all_videos:
            return Batch(self.videos, self.queries.at(places), self.video_of_query[there])
        videos, owner = torch.unique(self.video_of_query[there], return_inverse=True)
        return Batch(self.videos.at(videos), self.queries.at(places), owner)

    def in_buckets(self, sizes: BatchSizes) -> Batch:
        """The same with padding to a few sizes: frames, words and sentences are rounded up to a multiple (frames and
        words not beyond what the model reads)."""
        frames = min(_rounded_up(self.videos.frames.shape[1], FRAMES_BUCKET), sizes.max_frames)
        words = min(_rounded_up(self.queries.word_ids.shape[1], WORDS_BUCKET), sizes.max_words)
        sentences = _rounded_up(len(self.queries.word_ids), SENTENCES_BUCKET)
        owner = _repeat_last(self.video_of_query, sentences - len(self.video_of_query))
        return Batch(self.videos.padded(frames), self.queries.padded(sentences, words), owner)


@dataclass(frozen=True)
class BatchSizes:
    """How much of a video and of a sentence goes into a batch: clips, frames at most, words at most."""

    num_clips: int
    max_frames: int
    max_words: int


Half = TypeVar("Half", VideoBatch, QueryBatch)


def _rounded_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _repeat_last(values: Tensor, times: int) -> Tensor:
    return torch.cat([values, values[-1:].expand(times, *values.shape[1:])]) if times else values


def _each_tensor(part: Half, change: Callable[[Tensor], Tensor], **others: Any) -> Half:
    """A half with each of its tensors changed, and with other values of what is no tensor."""
    values: dict[str, Any] = {k: change(v) for k, v in vars(part).items() if isinstance(v, Tensor)}
    return replace(part, **values, **others)


def collate_videos(
    store: FeatureStore, video_ids: Sequence[str], *, num_clips: int, max_frames: int
) -> VideoBatch:
    """Read, pool and normalise the rows of some videos.

    Args:
        num_clips: 0 saves the work for who reads the frames alone; `clips` is then (videos, 0, width).
    Raises:
        DataError: the store does not hold one of them.
    """
    clips, centers, frames = [], [], []
    for video_id in video_ids:
        rows = _float32(store.rows(video_id))
        clips.append(l2_normalize(mean_pool(rows, num_clips) if num_clips else rows[:0]))
        centers.append(clip_centers(len(rows), num_clips) if num_clips else np.empty(0))
        frames.append(l2_normalize(frame_rows(rows, max_frames)))
    padded, mask = _padded(frames)
    at = torch.from_numpy(np.stack(centers).astype(np.float32))
    return VideoBatch(tuple(video_ids), torch.from_numpy(np.stack(clips)), at, padded, mask)


def collate_queries(
    query_ids: Sequence[str],
    sentences: Sequence[EncodedSentence],
    vocabulary: Vocabulary,
    *,
    max_words: int,
    hidden: Sequence[np.ndarray] | None = None,
) -> QueryBatch:
    """Pad encoded sentences, cut at `max_words`, and look up the ids of the very words that were encoded.

    Args:
        hidden: for each sentence the positions that reconstruction may not read (see `hidden_positions`).
    """
    words, word_mask = _padded([s.contextual[:max_words] for s in sentences])
    static_words, _ = _padded([s.static[:max_words] for s in sentences])
    word_ids = torch.zeros(word_mask.shape, dtype=torch.int64)
    hidden_words, content_words = (torch.zeros(word_mask.shape, dtype=torch.bool) for _ in range(2))
    for i, sentence in enumerate(sentences):
        ids = vocabulary.ids(sentence.words[:max_words])
        word_ids[i, : len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
        content_words[i, : len(ids)] = torch.from_numpy(vocabulary.weights(sentence.words[:max_words]) > 1)
        if hidden is not None:
            hidden_words[i, hidden[i]] = True
    whole = [s.sentence for s in sentences if s.sentence is not None]
    vectors = torch.from_numpy(l2_normalize(np.stack(whole))) if len(whole) == len(sentences) else None
    return QueryBatch(
        tuple(query_ids),
        words,
        static_words,
        word_mask,
        word_ids,
        hidden_words,
        vectors,
        content_words=content_words,
    )


def hidden_positions(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose a third of the words (at least one), without replacement, in proportion to their importance.

    Args:
        weights: (L,), > 0.
    Returns: positions, ascending. CPL (CVPR 2022) hides words in the same proportion.
    """
    count = max(len(weights) // 3, 1)
    chosen = rng.choice(len(weights), size=count, replace=False, p=weights / weights.sum())
    return np.sort(chosen)


def _float32(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """torch converts eight numbers at a time, NumPy one: 0.06 and 0.25 ms for 128 rows of 1,024."""
    converted: NDArray[np.float32] = torch.from_numpy(rows.copy()).float().numpy()
    return converted


def _padded(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    longest = max(len(r) for r in rows)
    values = np.zeros((len(rows), longest, rows[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
        mask[i, : len(row)] = True
    return torch.from_numpy(values), torch.from_numpy(mask)
