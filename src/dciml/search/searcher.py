"""Query → videos → spans → hits. The command line, Python and evaluation all answer through `Searcher`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from dciml.config import AnswerConfig
from dciml.errors import DataError
from dciml.features import (
    FeatureStore,
    JointTextEncoder,
    PieceCounter,
    RowTimes,
    WordEncoder,
    parse_window,
    span_seconds,
    whole_id,
)
from dciml.folders import how_to_add
from dciml.index import ClipIndex, VideoMatch, VideoMatches
from dciml.search.answer import Evidence, RankedMoments, rank_moments, rank_spans
from dciml.search.apart import BlocksApart, EvidencePart
from dciml.search.calibration import Calibration
from dciml.search.compose import Answer, Looked, compose, with_chances
from dciml.search.engines import Engine, Grounding
from dciml.search.long_videos import WindowedIds, whole_seconds
from dciml.search.needed import first_moments, num_looked
from dciml.search.notes import notes_on
from dciml.search.shown import ShownAnswer, places_apart, show
from dciml.search.similar import checked_span, hits_elsewhere, query_span, span_vector, without_span
from dciml.search.stores import VideoStores
from dciml.search.titles import Named, telling_titles
from dciml.types import SearchHit

FloatArray = NDArray[np.float64]
BATCH_QUERIES = 32
BATCH_PAIRS = 320
ALL_MOMENTS = 2**31
MOST_ASKED = 64
MOST_TIMES = 2**16  # a clock takes about 200 bytes


class Searcher:
    """An engine, an index that it built, and the features of the indexed videos.

    Long videos are in the index as windows (`features.long_videos`); hits are moments of whole videos, and `within`
    takes the ids of whole videos.

    Args:
        store: holds the features of the indexed videos; other stores that the index names are opened when needed.
        config: how an answer is composed, and shown.
        calibration: of the engine's scores; without it answers have no confidence.
    Raises:
        ModelError: the index was built with another model.
    """

    def __init__(
        self,
        engine: Engine,
        index: ClipIndex,
        store: FeatureStore,
        config: AnswerConfig,
        calibration: Calibration | None = None,
    ) -> None:
        index.check_fingerprint(engine.fingerprint)
        self.engine, self.index, self.config, self.calibration = engine, index, config, calibration
        self._stores = VideoStores(index, store)
        self._windowed = (index.video_ids, WindowedIds(index.video_ids))
        self.apart = BlocksApart.of(engine)
        self._asked: dict[str, NDArray[np.float32]] = {}
        self._titles: tuple[Sequence[str], Mapping[str, str]] = ((), {})
        self._times: dict[str, RowTimes] = {}
        self._times_of = index.video_ids  # the state of the index for which they are kept

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
        return [list(answer.hits) for answer in self.answer_batch(sentences, k, within)]

    def notes(self, sentence: str, answer: Answer | None = None) -> tuple[str, ...]:
        """What this search cannot take from a sentence, in plain sentences; () where there is nothing to say.

        Args:
            answer: to the sentence; also what it cannot tell is said then.
        """
        encoder = getattr(self.engine, "text_encoder", None)
        parts = encoder.knowing_parts if isinstance(encoder, JointTextEncoder) else (encoder,)
        vocabulary = encoder.vocabulary if isinstance(encoder, WordEncoder) else None
        if vocabulary is None and all(isinstance(part, WordEncoder) for part in parts):
            vocabulary = getattr(
                self.engine, "vocabulary", None
            )  # of what it was taught; an untrained one has none
        counter = next((part for part in parts if isinstance(part, PieceCounter)), None)
        notes = notes_on(sentence, vocabulary, None if counter is None else counter.num_pieces)
        if answer is None or not answer.hits or answer.confidence is not None or self.calibration is None:
            return notes
        return (
            *notes,
            "Whether there is such a video at all, this model cannot tell: the "
            f"{self.calibration.num_sentences} sentences that its confidence was learned from say too little of it.",
        )

    def evidence_apart(self, sentence: str, hits: Sequence[SearchHit]) -> list[tuple[EvidencePart, ...]]:
        """What pictures and the text beside the videos say of each hit; nothing where evidence is of one kind.

        Raises:
            DataError: the index does not hold a video.
        """
        if self.apart is None or not hits:
            return [()] * len(hits)
        query = self._asked.get(sentence)
        if query is None:
            query = self.engine.embed_queries([sentence])[0]
        return [self.apart.parts(query, self._clips_in(hit)) for hit in hits]

    def _clips_in(self, hit: SearchHit) -> NDArray[np.float32]:
        """The fused clips that a moment shows, (N, D); the nearest one where it shows none."""
        clips: list[NDArray[np.float32]] = []
        nearest: tuple[float, NDArray[np.float32]] | None = None
        for any_id in self.windowed.expand([hit.video_id]):
            window = parse_window(any_id) if any_id != hit.video_id else None
            begin = 0.0 if window is None else window.start_seconds
            times = begin + self.row_times(any_id).clip_spans(self.index.num_clips)
            if window is not None and (times[0, 0] >= hit.end_seconds or times[-1, 1] <= hit.start_seconds):
                continue
            own = self.engine.fused_clips(self._stores.group([any_id])[0][0], [any_id])[0]
            clips.append(own[(times[:, 0] < hit.end_seconds) & (times[:, 1] > hit.start_seconds)])
            away = np.abs(times.mean(axis=1) - (hit.start_seconds + hit.end_seconds) / 2)
            if nearest is None or away.min() < nearest[0]:
                nearest = float(away.min()), own[[int(away.argmin())]]
        found = np.concatenate(clips) if clips else np.empty((0, self.index.width), np.float32)
        return found if len(found) or nearest is None else nearest[1]

    def answer(
        self, sentence: str, k: int = 10, within: Sequence[str] | None = None, *, to_show: bool = False
    ) -> Answer:
        """The hits of `search`, how sure they are, and how well each clip of their videos fits.

        Other arguments and errors are those of `search`.

        Args:
            to_show: the answer is for people: hits that are mostly inside a better one (`AnswerConfig.max_inside`) are
                left out, and the next best take their places.
        """
        return self.answer_batch([sentence], k, within, to_show=to_show)[0]

    def answer_batch(
        self,
        sentences: Sequence[str],
        k: int | None = None,
        within: Sequence[str] | None = None,
        *,
        to_show: bool = False,
    ) -> list[Answer]:
        """The same for many sentences at once, with the same answers; k = None: `AnswerConfig.max_hits`."""
        max_inside = self.config.max_inside if to_show else None
        num_hits, answers = self._num_hits(k), []
        num_searched = len(self.windowed if within is None else {whole_id(any_id) for any_id in within})
        for batch, vectors, matches in self._matches(sentences, within):
            ranked = self._first_moments(batch, matches, self._num_ranked(num_hits), max_inside)
            hits = self._hits(matches, ranked)
            for row, own in enumerate(hits):
                looked = self._looked(matches, row)
                if self.calibration is not None:
                    scores = matches.scores[row]
                    looked = with_chances(looked, self.calibration, vectors[row], scores, num_searched)
                least = self.config.min_confidence
                blank = self.config.blank_videos
                answers.append(
                    compose(looked, own, self.windowed, self.row_times, num_hits, least, blank_videos=blank)
                )
        return answers

    def similar(
        self,
        video_id: str,
        start_seconds: float,
        end_seconds: float,
        k: int = 10,
        within: Sequence[str] | None = None,
    ) -> Answer:
        """Moments like a given one, best first; what overlaps it is left out.

        The query is what the moment's clip vectors have and the rest of the video has not; the spans are windows of the
        best contrast. There is no confidence: the calibration is one of sentences.

        Raises:
            DataError: an unknown video, a span that does not lie in it, or an empty index.
        """
        self._check(())
        ids = self.windowed.expand([video_id])
        places = self.index.places(ids)
        times = [self.row_times(own) for own in ids]
        starts = [0.0 if window is None else window.start_seconds for window in map(parse_window, ids)]
        ends = [begin + own.duration_seconds for begin, own in zip(starts, times, strict=True)]
        start, end = checked_span(video_id, start_seconds, end_seconds, max(ends))
        num_clips = self.index.num_clips
        parts = [begin + own.clip_spans(num_clips) for begin, own in zip(starts, times, strict=True)]
        best, shares = query_span(parts, start, end)
        store = self._stores.group([ids[best]])[0][0]
        vector = span_vector(self.engine.fused_clips(store, [ids[best]])[0], shares[best])
        # More by the video's own parts, which may drop out.
        chosen = None if within is None else self.windowed.expand(within)
        matches = self.index.match(vector[None], self.config.num_videos + len(ids), chosen)
        for place, own in zip(places.tolist(), shares, strict=True):
            matches = without_span(matches, place, own)
        return self._elsewhere(matches, (video_id, start, end), self._num_hits(k))

    def answer_vector(
        self, vector: NDArray[np.float32], k: int = 10, within: Sequence[str] | None = None
    ) -> Answer:
        """The moments that a vector (D,) of the space of queries asks for, a picture's say, best first.

        The spans are windows of the best contrast. There is no confidence: the calibration is one of sentences.

        Raises:
            DataError: an empty index.
        """
        self._check(())
        chosen = None if within is None else self.windowed.expand(within)
        matches = self.index.match(vector[None], self.config.num_videos, chosen)
        return self._elsewhere(matches, None, self._num_hits(k))

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
        num_hits, windowed = self._num_hits(k), self.windowed
        hits: list[list[list[SearchHit]]] = [[] for _ in configs]
        for matches, evidence in self.evidence(sentences, within):
            for found, config in zip(hits, configs, strict=True):
                some = self._hits(matches, rank_moments(evidence, config, self._num_ranked(num_hits)))
                found.extend(windowed.whole_hits(own, num_hits) for own in some)
        return hits

    def evidence(
        self, sentences: Sequence[str], within: Sequence[str] | None = None
    ) -> Iterator[tuple[VideoMatches, Evidence]]:
        """What an answer is decided on, in batches of queries: the costly part, the same for all span settings.

        Of the settings only `num_videos`, `ground_videos` and `candidates` matter here; to try others, keep the
        evidence and call `rank_moments` again.
        """
        for batch, _, matches in self._matches(sentences, within):
            grounded = min(self._num_grounded, matches.places.shape[1])
            pairs = np.indices((len(batch), grounded)).reshape(2, -1)
            grounding = self._ground_at(batch, matches, *pairs) if pairs.size else None
            num_rows = self._times_at(matches.places)[0]
            yield matches, Evidence(matches.scores, matches.clip_scores, grounding, num_rows)

    def _matches(
        self, sentences: Sequence[str], within: Sequence[str] | None
    ) -> Iterator[tuple[Sequence[str], NDArray[np.float32], VideoMatches]]:
        """Batches of sentences, with their query vectors (Q, D) and the best videos."""
        self._check(sentences)
        chosen = None if within is None else self.windowed.expand(within)
        for start in range(0, len(sentences), BATCH_QUERIES):
            batch = sentences[start : start + BATCH_QUERIES]
            vectors = self.engine.embed_queries(batch)
            self._remember(batch, vectors)
            yield batch, vectors, self.index.match(vectors, self.config.num_videos, chosen)

    def _first_moments(
        self, batch: Sequence[str], matches: VideoMatches, num_moments: int, max_inside: float | None
    ) -> RankedMoments:
        """As `rank_moments` over `evidence` has them, with no more work than they need."""
        seen = matches.places[:, : num_looked(self.config, num_moments)]
        evidence = Evidence(
            matches.scores[:, : seen.shape[1]],
            matches.clip_scores[:, : seen.shape[1]],
            None,
            self._times_at(seen)[0],
        )

        def ground(queries: NDArray[np.int64], places: NDArray[np.int64]) -> Grounding:
            return self._ground_at(batch, matches, queries, places)

        return first_moments(evidence, self.config, num_moments, self._num_grounded, ground, max_inside)

    @property
    def _num_grounded(self) -> int:
        return 0 if self.config.candidates == "windows" else self.config.ground_videos

    def _ground_at(
        self,
        batch: Sequence[str],
        matches: VideoMatches,
        queries: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> Grounding:
        """Ground the videos at some places among those of each query."""
        ids = self.index.video_ids
        videos = [ids[place] for place in matches.places[queries, places].tolist()]
        return self._ground([batch[query] for query in queries.tolist()], videos)

    def shown(self, answer: Answer) -> ShownAnswer:
        """An answer as it is shown: by video, what is far below the best marked, no moment too short to be seen.

        Without moments that are mostly inside a better one; of an answer `to_show` as many stay as were asked for.
        """

        def room_of(hit: SearchHit) -> tuple[float, float]:
            first, last = 0.0, whole_seconds(self.index, hit.video_id, self.windowed)
            if answer.asked is not None and answer.asked[0] == hit.video_id:
                start, end = answer.asked[1:]
                first, last = (first, start) if hit.end_seconds <= start else (end, last)
            return first, last

        return show(answer.hits, answer.deviations_below, self.config, room_of)

    @property
    def titles(self) -> Mapping[str, str]:
        """Titles that tell them apart, by id, of those whole videos whose own title another one has too.

        Raises:
            sqlite3.Error: the catalogue cannot be read.
        """
        if self._titles[0] is not self.index.video_ids:
            named = {
                whole_id(any_id): Named(whole_id(any_id), title, None if file is None else PurePath(file))
                for any_id, title, file in self.index.same_titles()
            }
            self._titles = (self.index.video_ids, telling_titles(list(named.values())))
        return self._titles[1]

    def _remember(self, sentences: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the last query vectors, where what spoke for the answer may be asked."""
        if self.apart is None:
            return
        if len(self._asked) > MOST_ASKED:
            self._asked = {}
        self._asked |= zip(sentences, vectors, strict=True)

    def match_videos(
        self, sentences: Sequence[str], num_videos: int, within: Sequence[str] | None = None
    ) -> list[list[VideoMatch]]:
        """The first stage alone: the best videos of each sentence, with the similarity of each clip.

        Of long videos these are windows.
        """
        self._check(sentences)
        chosen = None if within is None else self.windowed.expand(within)
        return self.index.search(self.engine.embed_queries(sentences), num_videos, chosen)

    def ground_given(
        self, sentences: Sequence[str], video_ids: Sequence[str], grounding: Grounding | None = None
    ) -> list[list[SearchHit]]:
        """The moments of sentence i in video i, best first; the video is given (SVMR), so its score does not count.

        Args:
            grounding: what the engine's `ground` gave for these pairs, when the caller has it already.
        Raises:
            DataError: as `search`, or an unknown video.
        """
        if len(sentences) != len(video_ids):
            raise ValueError(f"{len(sentences)} sentences, but {len(video_ids)} videos")
        self._check(sentences)
        hits: list[list[SearchHit]] = []
        for start in range(0, len(sentences), BATCH_PAIRS):
            chosen = slice(start, start + BATCH_PAIRS)
            batch, ids = sentences[chosen], video_ids[chosen]
            clip_scores = self.index.pair_scores(self.engine.embed_queries(batch), ids)
            proposals = None
            if self.config.candidates != "windows":
                proposals = (
                    self._ground(batch, ids)
                    if grounding is None
                    else Grounding(grounding.spans_unit[chosen], grounding.scores[chosen])
                )
            places = self.index.places(ids)
            ranked = rank_spans(clip_scores, proposals, self.config, self._times_at(places)[0])
            places = np.broadcast_to(places[:, None], ranked.scores.shape)
            hits.extend(self._as_hits(places, ranked.spans_unit, ranked.scores))
        return hits

    def _elsewhere(
        self, matches: VideoMatches, asked: tuple[str, float, float] | None, num_hits: int
    ) -> Answer:
        """The answer to a moment (video id, start, end) as the query, or to none, from the matches of one query."""
        num_rows = self._times_at(matches.places)[0]
        evidence = Evidence(matches.scores, matches.clip_scores, None, num_rows)
        hits = self._hits(matches, rank_moments(evidence, self.config, ALL_MOMENTS))[0]
        looked, blank = self._looked(matches, 0), self.config.blank_videos
        answer = compose(looked, hits, self.windowed, self.row_times, len(hits), 0.0, blank_videos=blank)
        others = answer.hits if asked is None else hits_elsewhere(answer.hits, *asked)
        elsewhere = [others[place] for place in places_apart(others, self.config.max_inside)][:num_hits]
        below_of = dict(zip(answer.hits, answer.deviations_below, strict=True))
        least = min((below_of[hit] for hit in elsewhere), default=0.0)
        below = tuple(below_of[hit] - least for hit in elsewhere)
        numbered = tuple(replace(hit, rank=rank) for rank, hit in enumerate(elsewhere, start=1))
        shown = {hit.video_id: answer.relevance[hit.video_id] for hit in numbered}
        return Answer(numbered, bool(numbered), None, shown, below, asked)

    def _looked(self, matches: VideoMatches, row: int) -> Looked:
        ids = self.index.video_ids
        return Looked([ids[place] for place in matches.places[row]], matches.clip_scores[row])

    def _num_ranked(self, num_hits: int) -> int:
        """Windows overlap, so that a moment may come twice: all are ranked, and the best are left when joined."""
        return ALL_MOMENTS if self.windowed.has_windows else num_hits

    def _num_hits(self, k: int | None) -> int:
        number = self.config.max_hits if k is None else k
        if number < 1:
            raise ValueError(f"k must be positive, not {number}")
        return number

    def _check(self, sentences: Sequence[str]) -> None:
        if not len(self.index):
            raise DataError(
                "the index holds no video", where=self.index.path, mend=how_to_add(self.index.path)
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

    def row_times(self, video_id: str) -> RowTimes:
        """When the rows of a video of the index, or of a window, are. Raises DataError: its store does not hold it."""
        known = self._times.get(video_id)
        if known is None or self._times_of is not self.index.video_ids:
            if self._times_of is not self.index.video_ids or len(self._times) >= MOST_TIMES:
                self._times, self._times_of = {}, self.index.video_ids
            known = self._times[video_id] = self._stores.row_times(video_id)
        return known

    def _times_at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """For places of any shape: how many rows, the seconds that these cover, and how long the videos are."""
        distinct, inverse = np.unique(places, return_inverse=True)
        times = [self.row_times(self.index.video_ids[place]) for place in distinct.tolist()]
        num_rows = np.array([own.num_rows for own in times], dtype=np.int64)
        covered = np.array([own.covered_seconds for own in times], dtype=np.float64)
        durations = np.array([own.duration_seconds for own in times], dtype=np.float64)
        where = inverse.reshape(places.shape)
        return num_rows[where], covered[where], durations[where]

    @property
    def windowed(self) -> WindowedIds:
        """The videos of the index as whole videos."""
        if self._windowed[0] is not self.index.video_ids:  # the index was changed
            self._windowed = (self.index.video_ids, WindowedIds(self.index.video_ids))
        return self._windowed[1]

    def _hits(self, matches: VideoMatches, ranked: RankedMoments) -> list[list[SearchHit]]:
        places = np.take_along_axis(matches.places, ranked.video_places, axis=1)
        return self._as_hits(places, ranked.spans_unit, ranked.scores)

    def _as_hits(
        self, places: np.ndarray, spans_unit: np.ndarray, scores: np.ndarray
    ) -> list[list[SearchHit]]:
        _, covered, durations = self._times_at(places)
        ids, seconds = self.index.video_ids, span_seconds(spans_unit, covered, durations)
        is_hit = np.isfinite(scores) & (
            seconds[..., 1] > seconds[..., 0]
        )  # rows may lie past the end of a video
        return [
            [
                SearchHit(rank, ids[place], start, end, score)
                for rank, (place, (start, end), score) in enumerate(
                    zip(*(column[row].tolist() for column in (places, seconds, scores)), strict=True), start=1
                )
            ]
            for places, seconds, scores, row in zip(places, seconds, scores, is_hit, strict=True)
        ]
