"""Query → videos → spans → hits. The command line, Python and evaluation all answer through this class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dciml.config import AnswerConfig
from dciml.errors import DataError
from dciml.features.store import FeatureStore
from dciml.index import ClipIndex, VideoMatch, VideoMatches
from dciml.search.answer import Evidence, RankedMoments, rank_moments, rank_spans
from dciml.search.engine import Engine, Grounding
from dciml.search.stores import VideoStores
from dciml.types import SearchHit

BATCH_QUERIES = 32
BATCH_PAIRS = 320


class Searcher:
    """An engine, an index that it built, and the features of the indexed videos.

    Args:
        store: holds the features of the indexed videos; other stores that the index names are opened when needed.
        config: how an answer is composed.
    Raises:
        ModelError: the index was built with another model.
    """

    def __init__(self, engine: Engine, index: ClipIndex, store: FeatureStore, config: AnswerConfig) -> None:
        index.check_fingerprint(engine.fingerprint)
        self.engine, self.index, self.config = engine, index, config
        self._stores = VideoStores(index, store)

    def search(self, sentence: str, k: int = 10, within: Sequence[str] | None = None) -> list[SearchHit]:
        """The k best moments for a sentence, best first.

        Args:
            within: ids of the videos to search in; None: all.
        Returns: fewer than k hits when the first videos (`AnswerConfig.num_videos`) have no more spans.
        Raises:
            DataError: the sentence is empty or has no words, the index is empty, or `within` names an unknown video.
        """
        return self.search_batch([sentence], k, within)[0]

    def search_batch(
        self, sentences: Sequence[str], k: int | None = None, within: Sequence[str] | None = None
    ) -> list[list[SearchHit]]:
        """The same for many sentences at once, with the same hits; k = None: `AnswerConfig.max_hits`."""
        return self.search_variants(sentences, [self.config], k, within)[0]

    def search_variants(
        self,
        sentences: Sequence[str],
        configs: Sequence[AnswerConfig],
        k: int | None = None,
        within: Sequence[str] | None = None,
    ) -> list[list[list[SearchHit]]]:
        """The hits of `search_batch` under several answer settings, with the costly part done once.

        Args:
            configs: may differ from the searcher's own in how spans are ranked, see `evidence`.
        Returns: for each config, the hits of each sentence.
        """
        num_hits = self.config.max_hits if k is None else k
        if num_hits < 1:
            raise ValueError(f"k must be positive, not {num_hits}")
        hits: list[list[list[SearchHit]]] = [[] for _ in configs]
        for matches, evidence in self.evidence(sentences, within):
            for found, config in zip(hits, configs, strict=True):
                found.extend(self._hits(matches, rank_moments(evidence, config, num_hits)))
        return hits

    def evidence(
        self, sentences: Sequence[str], within: Sequence[str] | None = None
    ) -> Iterator[tuple[VideoMatches, Evidence]]:
        """What an answer is decided on, in batches of queries: the costly part, the same for all span settings.

        Of the settings only `num_videos`, `ground_videos` and `candidates` matter here; to try others, keep the
        evidence and call `rank_moments` again.
        """
        self._check(sentences)
        for start in range(0, len(sentences), BATCH_QUERIES):
            batch = sentences[start : start + BATCH_QUERIES]
            matches = self.index.match(self.engine.embed_queries(batch), self.config.num_videos, within)
            grounded = min(self.config.ground_videos, matches.places.shape[1])
            if self.config.candidates == "windows":
                grounded = 0
            ids = self.index.video_ids
            pairs = [(sentence, ids[place]) for sentence, places in zip(batch, matches.places, strict=True)
                     for place in places[:grounded]]  # fmt: skip
            grounding = (
                self._ground([pair[0] for pair in pairs], [pair[1] for pair in pairs]) if pairs else None
            )
            yield matches, Evidence(matches.scores, matches.clip_scores, grounding)

    def match_videos(
        self, sentences: Sequence[str], num_videos: int, within: Sequence[str] | None = None
    ) -> list[list[VideoMatch]]:
        """The first stage alone: the best videos of each sentence, with the similarity of each clip."""
        self._check(sentences)
        return self.index.search(self.engine.embed_queries(sentences), num_videos, within)

    def ground_given(self, sentences: Sequence[str], video_ids: Sequence[str]) -> list[list[SearchHit]]:
        """The moments of sentence i in video i, best first; the video is given (SVMR), so its score does not count.

        Raises:
            DataError: as `search`, or an unknown video.
        """
        if len(sentences) != len(video_ids):
            raise ValueError(f"{len(sentences)} sentences, but {len(video_ids)} videos")
        self._check(sentences)
        hits: list[list[SearchHit]] = []
        for start in range(0, len(sentences), BATCH_PAIRS):
            batch, ids = sentences[start : start + BATCH_PAIRS], video_ids[start : start + BATCH_PAIRS]
            clip_scores = self.index.pair_scores(self.engine.embed_queries(batch), ids)
            grounding = None if self.config.candidates == "windows" else self._ground(batch, ids)
            ranked = rank_spans(clip_scores, grounding, self.config)
            places = np.broadcast_to(self.index.places(ids)[:, None], ranked.scores.shape)
            hits.extend(self._as_hits(places, ranked.spans_unit, ranked.scores))
        return hits

    def _check(self, sentences: Sequence[str]) -> None:
        if not len(self.index):
            raise DataError(
                "the index holds no video", where=self.index.path, mend="add some with `dciml index-add`"
            )
        for sentence in sentences:
            if not sentence.strip():
                raise DataError("the sentence is empty", mend="describe a moment in a few words")

    def _ground(self, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        groups = self._stores.group(video_ids)
        if len(groups) == 1:
            return self.engine.ground(groups[0][0], sentences, video_ids)
        parts = [
            self.engine.ground(store, [sentences[i] for i in places], [video_ids[i] for i in places])
            for store, places in groups
        ]
        order = np.argsort(np.concatenate([places for _, places in groups]))
        spans = np.concatenate([part.spans_unit for part in parts])[order]
        return Grounding(spans, np.concatenate([part.scores for part in parts])[order])

    def _hits(self, matches: VideoMatches, ranked: RankedMoments) -> list[list[SearchHit]]:
        places = np.take_along_axis(matches.places, ranked.video_places, axis=1)
        return self._as_hits(places, ranked.spans_unit, ranked.scores)

    def _as_hits(
        self, places: np.ndarray, spans_unit: np.ndarray, scores: np.ndarray
    ) -> list[list[SearchHit]]:
        ids, seconds = self.index.video_ids, self.index.durations_seconds[places][..., None] * spans_unit
        return [
            [
                SearchHit(rank, ids[place], start, end, score)
                for rank, (place, (start, end), score) in enumerate(zip(*row, strict=True), start=1)
                if np.isfinite(score)
            ]
            for row in zip(places.tolist(), seconds.tolist(), scores.tolist(), strict=True)
        ]
