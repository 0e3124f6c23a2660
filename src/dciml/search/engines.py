"""Models as search and evaluation see them: one interface, `Engine`, for the trained model and the baselines."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dciml.features import EncodedSentence, FeatureStore, TextEncoder, Vocabulary, mean_pool
from dciml.method import (
    BatchSizes,
    DualBranch,
    QueryBatch,
    Selection,
    Watched,
    collate_queries,
    collate_videos,
    hidden_positions,
)
from dciml.search.contrast import contrast_windows
from dciml.threads import num_shares, share_out


@dataclass(frozen=True)
class Grounding:
    """Candidate spans for N (sentence, video) pairs, P each, best first by the model's own choice.

    `spans_unit` is (N, P, 2), start and end in unit time; `scores` is (N, P), higher is better (for the
    reconstruction branch: minus the negative log-likelihood), non-increasing along P.
    """

    spans_unit: NDArray[np.float64]
    scores: NDArray[np.float64]


class Engine(Protocol):
    """A model as search sees it.

    The score of a query and a video is `max_j ⟨query, fused clip j⟩`: one vector a clip, so that any index of
    inner products can search (0.7·cos(q, clip) + 0.3·cos(q, frames) = ⟨q̂, 0.7·ĉ + 0.3·f̂⟩).
    """

    @property
    def fingerprint(self) -> str:
        """Changes whenever weights, encoders or pooling change; an index built with another one is refused."""

    @property
    def num_clips(self) -> int:
        """Clips a video (S)."""

    @property
    def vector_width(self) -> int:
        """Width of query vectors and fused clip vectors (D)."""

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        """Fused clip vectors, (videos, S, D). Raises DataError for a video that the store does not hold."""

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Query vectors, (sentences, D). Raises DataError for a sentence without words."""

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """Ground sentence i in video i; the two sequences have equal length N."""


MOST_VIDEOS = 256
"""About 165 KB each at the published sizes (128 frames, 256 wide): 42 MB."""


class SeenVideos:
    """The videos that one model has watched last. Several threads may use it.

    A video is known by its store and its line there, checksum included, so that new features are never answered
    with what was computed from old ones.
    """

    def __init__(self, most: int = MOST_VIDEOS) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Watched] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def watch(
        self,
        store: FeatureStore,
        video_ids: Sequence[str],
        watch: Callable[[FeatureStore, Sequence[str]], Watched],
    ) -> Watched:
        """Videos in the order of `video_ids`; `watch` computes those that are not kept.

        Raises:
            DataError: the store does not hold one of them.
        """
        keys = {video_id: (store.path, store.entry(video_id)) for video_id in video_ids}
        with self._lock:
            found = {v: self._kept[key] for v, key in keys.items() if key in self._kept}
        missing = [video_id for video_id in keys if video_id not in found]
        if missing:
            found |= zip(missing, watch(store, missing).each(), strict=True)
        with self._lock:
            for video_id, key in keys.items():
                self._kept[key] = found[video_id]
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return Watched.join([found[video_id] for video_id in video_ids])


NUM_WINDOWS = 10  # as many as the grounding branch has proposals
MAX_WINDOW_IOU = 0.7
_SENTENCES_AT_ONCE, _VIDEOS_AT_ONCE = 256, 64
Vectors = NDArray[np.float32]


class Space(Protocol):
    """Where sentences and clips are compared by inner product: `CosineSpace` or `SharedSpace`."""

    @property
    def vector_width(self) -> int:
        """Width of all vectors."""

    def embed_sentences(self, sentences: Sequence[EncodedSentence]) -> Vectors:
        """(N, vector_width)."""

    def embed_clips(self, clips: Vectors) -> Vectors:
        """Pooled clips (V, S, video width) → (V, S, vector_width)."""


@dataclass(frozen=True)
class BaselineEngine:
    """A space with its text encoder; it grounds by the windows of the best contrast.

    `space` is in evaluation mode; `store_encoder` names the features that it reads.
    """

    space: Space
    text_encoder: TextEncoder
    num_clips: int
    fingerprint: str
    store_encoder: str

    @property
    def vector_width(self) -> int:
        """Width of query and clip vectors."""
        return self.space.vector_width

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> Vectors:
        """Fused clip vectors, (videos, S, D). Raises DataError for a video that the store does not hold."""
        parts = [np.empty((0, self.num_clips, self.vector_width), dtype=np.float32)]
        for start in range(0, len(video_ids), _VIDEOS_AT_ONCE):
            clips = pooled_clips(store, video_ids[start : start + _VIDEOS_AT_ONCE], self.num_clips)
            parts.append(self.space.embed_clips(clips))
        return np.concatenate(parts)

    def embed_queries(self, sentences: Sequence[str]) -> Vectors:
        """Unit query vectors, (sentences, D). Raises DataError for a sentence without words."""
        parts = [np.empty((0, self.vector_width), dtype=np.float32)]
        for start in range(0, len(sentences), _SENTENCES_AT_ONCE):
            encoded = self.text_encoder.encode(sentences[start : start + _SENTENCES_AT_ONCE])
            parts.append(self.space.embed_sentences(encoded))
        return np.concatenate(parts)

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """The windows of best contrast for sentence i in video i; their contrast is their score."""
        unique = list(dict.fromkeys(video_ids))
        place = {video_id: row for row, video_id in enumerate(unique)}
        fused, queries = self.fused_clips(store, unique), self.embed_queries(sentences)
        similarity = np.empty((len(sentences), self.num_clips), dtype=np.float32)
        for row, video_id in enumerate(video_ids):
            similarity[row] = fused[place[video_id]] @ queries[row]
        counts = [store.num_rows(video_id) for video_id in video_ids]
        spans, contrast = contrast_windows(similarity, NUM_WINDOWS, MAX_WINDOW_IOU, counts)
        return Grounding(spans, contrast.astype(np.float64))


def pooled_clips(store: FeatureStore, video_ids: Sequence[str], num_clips: int) -> Vectors:
    """The rows of each video pooled to S clips, (videos, S, width). Raises DataError for an unknown video."""
    return np.stack([mean_pool(store.rows(video_id), num_clips) for video_id in video_ids])


@dataclass(frozen=True)
class DualEngine:
    """Both branches with their text encoder, ready to answer.

    `dual` is in evaluation mode on `device`, and its weights stay as they are: `seen` keeps what they gave.
    """

    dual: DualBranch
    sizes: BatchSizes
    text_encoder: TextEncoder
    vocabulary: Vocabulary
    fingerprint: str
    device: torch.device
    seen: SeenVideos = field(default_factory=SeenVideos, init=False)

    @property
    def num_clips(self) -> int:
        """Clips a video."""
        return self.sizes.num_clips

    @property
    def vector_width(self) -> int:
        """Width of query and clip vectors."""
        return self.dual.retrieval.vector_width

    @torch.inference_mode()
    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        """Fused clip vectors, (videos, clips, hidden). Raises DataError for an unknown video."""
        parts = []
        for start in range(0, len(video_ids), 64):
            videos = collate_videos(
                store,
                video_ids[start : start + 64],
                num_clips=self.num_clips,
                max_frames=self.sizes.max_frames,
            ).to(self.device)
            encoded = self.dual.retrieval.encode_videos(videos)
            parts.append(self.dual.retrieval.fused_clips(encoded).cpu())
        if not parts:
            return np.zeros((0, self.num_clips, self.vector_width), dtype=np.float32)
        return torch.cat(parts).float().numpy()

    @torch.inference_mode()
    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Search vectors, (sentences, D). Raises DataError for a sentence without a word."""
        parts = []
        for start in range(0, len(sentences), 256):
            queries = self._queries(sentences[start : start + 256]).to(self.device)
            retrieval = self.dual.retrieval
            parts.append(retrieval.search_vectors(retrieval.encode_queries(queries)).cpu())
        if not parts:
            return np.zeros((0, self.vector_width), dtype=np.float32)
        return torch.cat(parts).float().numpy()

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """Proposals of sentence i in video i, lowest negative log-likelihood first; scores are its negative."""
        if len(sentences) != len(video_ids):
            raise ValueError(f"{len(sentences)} sentences, but {len(video_ids)} videos")
        count = self.dual.grounding.num_proposals
        spans, scores = [np.zeros((0, count, 2))], [np.zeros((0, count))]
        for start in range(0, len(sentences), 64):
            part = slice(start, start + 64)
            for found in self._ground(store, sentences[part], video_ids[part]):
                spans.append(found.spans_unit)
                scores.append(found.scores)
        return Grounding(np.concatenate(spans), np.concatenate(scores))

    def _ground(
        self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]
    ) -> list[Grounding]:
        """A sentence is encoded once, in however many videos it is asked; on a CPU the pairs are shared out."""
        distinct = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
        with torch.inference_mode():
            queries = self._queries(list(distinct)).to(self.device)
            local = self.dual.retrieval.local
            asked_local = None if local is None or not self._anchored else local.encode_queries(queries)
        places = torch.tensor([distinct[sentence] for sentence in sentences], device=self.device)

        @torch.inference_mode()
        def ground(pairs: NDArray[np.int64]) -> Grounding:
            asked = [video_ids[pair] for pair in pairs]
            videos = {video_id: index for index, video_id in enumerate(dict.fromkeys(asked))}
            watched = self.seen.watch(store, list(videos), self._watch)
            owner = torch.tensor([videos[video_id] for video_id in asked], device=self.device)
            own_places = places[torch.from_numpy(pairs).to(self.device)]
            own = queries.at(own_places)
            if asked_local is not None:
                assert watched.local_clips is not None
                anchors = self.dual.anchors(asked_local[own_places], watched.local_clips[owner])
                own = replace(own, anchors=anchors)
            return _best_first(self.dual.grounding.choose(watched, own, owner))

        shares = min(num_shares(), len(sentences)) if self.device.type == "cpu" else 1
        return share_out(ground, np.array_split(np.arange(len(sentences)), shares))

    def _watch(self, store: FeatureStore, video_ids: Sequence[str]) -> Watched:
        most, clips = self.sizes.max_frames, self.num_clips if self._anchored else 0
        videos = collate_videos(store, video_ids, num_clips=clips, max_frames=most).to(self.device)
        watched = self.dual.grounding.watch(videos)
        if not self._anchored:
            return watched
        return replace(watched, local_clips=self.dual.retrieval.encode_local_clips(videos))

    @property
    def _anchored(self) -> bool:
        return self.dual.grounding.anchored

    def _queries(self, sentences: Sequence[str]) -> QueryBatch:
        encoded = self.text_encoder.encode(sentences)
        most = self.sizes.max_words
        # The hidden words are a function of the sentence alone, so that an answer never depends on batch mates.
        hidden = [
            hidden_positions(
                np.asarray(self.vocabulary.weights(e.words[:most]), dtype=np.float64),
                np.random.default_rng(zlib.crc32(" ".join(e.words).encode())),
            )
            for e in encoded
        ]
        return collate_queries(
            [str(i) for i in range(len(encoded))], encoded, self.vocabulary, max_words=most, hidden=hidden
        )


def _best_first(selection: Selection) -> Grounding:
    order = selection.cost.argsort(dim=1, stable=True)
    unit = torch.stack([selection.proposals.starts(), selection.proposals.ends()], dim=-1)
    spans, cost = unit.gather(1, order[..., None].expand(-1, -1, 2)), selection.cost.gather(1, order)
    return Grounding(spans.cpu().double().numpy(), -cost.cpu().double().numpy())
