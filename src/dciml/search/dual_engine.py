"""The trained model as search and evaluation see it (see `engine.Engine`)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dciml.config import RunConfig
from dciml.features.base import TextEncoder
from dciml.features.store import FeatureStore
from dciml.features.vocabulary import Vocabulary
from dciml.method.batch import QueryBatch, collate_queries, collate_videos, hidden_positions
from dciml.method.grounding import Watched
from dciml.method.mutual import DualBranch
from dciml.method.outputs import Selection
from dciml.search.engine import Grounding
from dciml.search.seen_videos import SeenVideos
from dciml.threads import num_shares, share_out


@dataclass(frozen=True)
class DualEngine:
    """Both branches with their text encoder, ready to answer.

    `dual` is in evaluation mode on `device`, and its weights stay as they are: `seen` keeps what they gave.
    """

    dual: DualBranch
    config: RunConfig
    text_encoder: TextEncoder
    vocabulary: Vocabulary
    fingerprint: str
    device: torch.device
    seen: SeenVideos = field(default_factory=SeenVideos, init=False)

    @property
    def num_clips(self) -> int:
        """Clips a video."""
        return self.config.retrieval.num_clips

    @property
    def vector_width(self) -> int:
        """Width of query and clip vectors."""
        return self.config.retrieval.hidden

    @torch.inference_mode()
    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        """Fused clip vectors, (videos, clips, hidden). Raises DataError for an unknown video."""
        parts = []
        for start in range(0, len(video_ids), 64):
            videos = collate_videos(
                store,
                video_ids[start : start + 64],
                num_clips=self.num_clips,
                max_frames=self.config.retrieval.max_frames,
            ).to(self.device)
            encoded = self.dual.retrieval.encode_videos(videos)
            parts.append(self.dual.retrieval.fused_clips(encoded).cpu())
        if not parts:
            return np.zeros((0, self.num_clips, self.vector_width), dtype=np.float32)
        return torch.cat(parts).float().numpy()

    @torch.inference_mode()
    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Unit query vectors, (sentences, hidden). Raises DataError for a sentence without a word."""
        parts = []
        for start in range(0, len(sentences), 256):
            queries = self._queries(sentences[start : start + 256]).to(self.device)
            vectors = self.dual.retrieval.encode_queries(queries)
            parts.append(torch.nn.functional.normalize(vectors, dim=-1).cpu())
        if not parts:
            return np.zeros((0, self.vector_width), dtype=np.float32)
        return torch.cat(parts).float().numpy()

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """Proposals of sentence i in video i, lowest negative log-likelihood first; scores are its negative."""
        if len(sentences) != len(video_ids):
            raise ValueError(f"{len(sentences)} sentences, but {len(video_ids)} videos")
        count = self.config.grounding.num_proposals
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
        places = torch.tensor([distinct[sentence] for sentence in sentences], device=self.device)

        @torch.inference_mode()
        def ground(pairs: NDArray[np.int64]) -> Grounding:
            asked = [video_ids[pair] for pair in pairs]
            videos = {video_id: index for index, video_id in enumerate(dict.fromkeys(asked))}
            watched = self.seen.watch(store, list(videos), self._watch)
            owner = torch.tensor([videos[video_id] for video_id in asked], device=self.device)
            own = queries.at(places[torch.from_numpy(pairs).to(self.device)])
            return _best_first(self.dual.grounding.choose(watched, own, owner))

        shares = min(num_shares(), len(sentences)) if self.device.type == "cpu" else 1
        return share_out(ground, np.array_split(np.arange(len(sentences)), shares))

    def _watch(self, store: FeatureStore, video_ids: Sequence[str]) -> Watched:
        most = self.config.retrieval.max_frames
        videos = collate_videos(store, video_ids, num_clips=0, max_frames=most)
        return self.dual.grounding.watch(videos.to(self.device))

    def _queries(self, sentences: Sequence[str]) -> QueryBatch:
        encoded = self.text_encoder.encode(sentences)
        most = self.config.text.max_words
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
    order = selection.nll.argsort(dim=1, stable=True)
    unit = torch.stack([selection.proposals.starts(), selection.proposals.ends()], dim=-1)
    spans, nll = unit.gather(1, order[..., None].expand(-1, -1, 2)), selection.nll.gather(1, order)
    return Grounding(spans.cpu().double().numpy(), -nll.cpu().double().numpy())
