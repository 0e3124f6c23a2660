"""The vectors of one committed state, read from its segments."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.index.backend import FloatArray, PlaceArray, VideoBlock
from dciml.index.catalogue import Contents
from dciml.index.codes import CodeArray, Coder
from dciml.index.exact import similarities_in_blocks
from dciml.index.inside import check_inside
from dciml.index.scans import SegmentScan, num_codes
from dciml.index.segments import Segment

BLOCK_VIDEOS = 1024
LARGE_BYTES = 1 << 31  # files of vectors up to this size may stay mapped as a whole
RESIDENT_BYTES = 1 << 28  # of larger ones, about so much is mapped at a time
FAULT_BYTES = 1 << 16  # the first touch of a page maps its neighbours too
CHECKED_BYTES = (
    1 << 28
)  # vectors of so many bytes are looked at on opening; of more, when they are first read
MAX_SCANS = 4
MAX_VECTORS = 1 << 17  # candidates a query beyond which looking at every wanted video is cheaper
DENSE_VIDEOS = 20_000  # from here on more candidates are taken, as the root of the number of videos
MIN_SHARE = 4  # codes are used when at most one video in so many is asked for


def segment_file(folder: Path, key: int) -> Path:
    """The vectors of a segment."""
    return folder / f"segment-{key}.vectors"


def codes_file(folder: Path, key: int, coder: int) -> Path:
    """The codes of a segment."""
    return folder / f"segment-{key}-{coder}.codes"


def coder_file(folder: Path, number: int) -> Path:
    """A coder."""
    return folder / f"coder-{number}.npz"


class OpenSegments:
    """Mapped segments, and their codes in memory; see `OpenVectors`.

    Args:
        before: an older state, whose codes in memory are used again.
    Raises:
        ModelError: a file is missing or damaged, or does not fit the catalogue.
    """

    def __init__(self, folder: Path, contents: Contents, before: OpenSegments | None = None) -> None:
        self._folder, self._contents = folder, contents
        facts = contents.facts
        self._segments = {
            key: Segment(
                segment_file(folder, key),
                (entry.num_videos, facts.num_clips, facts.width),
                facts.options.dtype,
            )
            for key, entry in contents.segments.items()
        }
        num_bytes = sum(segment.array.nbytes for segment in self._segments.values())
        self._is_large = num_bytes > LARGE_BYTES
        self._check_segments(before, num_bytes)
        self._touched = 0
        self._places_of = self._map_places()
        self._scans = self._load_scans(before) if contents.segments else []
        self._slots = [scan.slots(self._places_of) for scan in self._scans]

    def _check_segments(self, before: OpenSegments | None, num_bytes: int) -> None:
        """Look for numbers that are NaN or out of range; files never change, so what was looked at stays good."""
        for key, segment in self._segments.items():
            segment.is_checked = (
                before is not None and key in before._segments and before._segments[key].is_checked
            )
            if num_bytes <= CHECKED_BYTES:
                segment.check()

    def _map_places(self) -> dict[int, PlaceArray]:
        """For each segment the places of its rows, −1 for a removed video."""
        contents, places_of = self._contents, {}
        order = np.argsort(contents.segment_keys, kind="stable")
        bounds = np.searchsorted(contents.segment_keys[order], [*contents.segments, np.inf])
        known = 0
        for (key, entry), start in zip(contents.segments.items(), bounds[:-1], strict=True):
            stop = start + np.searchsorted(contents.segment_keys[order[start:]], key, side="right")
            places = order[start:stop]
            rows = contents.segment_rows[places]
            if len(rows) and not (rows.min() >= 0 and rows.max() < entry.num_videos):
                raise self._misfit()
            places_of[key] = np.full(entry.num_videos, -1, dtype=np.int64)
            places_of[key][rows] = places
            known += len(np.unique(rows))
        if known != len(contents.video_ids):
            raise self._misfit()
        return places_of

    def _misfit(self) -> ModelError:
        return ModelError(
            f"{self._folder}: vectors and catalogue do not fit together; restore a backup, or build the index again."
        )

    def _load_scans(self, before: OpenSegments | None) -> list[SegmentScan]:
        """Codes in memory, or none when a segment has none."""
        segments = self._contents.segments
        coders = {entry.coder for entry in segments.values()}
        if None in coders or len(coders) != 1:
            return []
        kept = []
        if before is not None and coders == {entry.coder for entry in before._contents.segments.values()}:
            kept = [scan for scan in before._scans if set(scan.keys) <= set(segments)]
        if len(kept) >= MAX_SCANS:
            kept = []
        covered = {key for scan in kept for key in scan.keys}
        keys = [key for key in segments if key not in covered]
        if not keys:
            return kept
        (number,) = (coder for coder in coders if coder is not None)
        coder = Coder.read(coder_file(self._folder, number), self._contents.facts.width)
        parts = (self._read_codes(key, number, coder) for key in keys)
        videos = [segments[key].num_videos for key in keys]
        return [*kept, SegmentScan(coder, keys, parts, videos, self._contents.facts.num_clips)]

    def _read_codes(self, key: int, number: int, coder: Coder) -> CodeArray:
        file = codes_file(self._folder, key, number)
        check_inside(file)
        videos, clips = self._contents.segments[key].num_videos, self._contents.facts.num_clips
        size = num_codes(videos, clips) * coder.code_bytes
        if not file.is_file() or file.stat().st_size != size:
            what = "is damaged" if file.exists() else "is missing"
            raise ModelError(f"{file}: the file of codes {what}; restore a backup, or build the index again.")
        codes = np.fromfile(file, dtype=np.uint8)
        if zlib.crc32(codes.data) != self._contents.segments[key].codes_crc:
            raise ModelError(
                f"{file}: the codes do not match their checksum; restore a backup, or build the index again."
            )
        return codes.reshape(-1, coder.code_bytes)

    def blocks(self, places: PlaceArray | None) -> Iterator[VideoBlock]:
        """See `OpenVectors.blocks`; without `places`, views of the mapped files where nothing was removed."""
        if places is None:
            for key, segment in self._segments.items():
                yield from self._all_of(segment, self._places_of[key])
            return
        keys = self._contents.segment_keys[places]
        for key in np.unique(keys).tolist():
            inside = places[keys == key]
            for start in range(0, len(inside), BLOCK_VIDEOS):
                part = inside[start : start + BLOCK_VIDEOS]
                self._touch(len(part) * self._segments[key].array[0].nbytes)
                yield part, self._segments[key].videos(self._contents.segment_rows[part])

    def _all_of(self, segment: Segment, places: PlaceArray) -> Iterator[VideoBlock]:
        if segment.array.dtype == np.float32 and (places >= 0).all():
            self._touch(segment.array.nbytes)
            segment.check()
            yield places, segment.array.astype(np.float32, copy=False)
            return
        for start in range(0, len(places), BLOCK_VIDEOS):
            part = places[start : start + BLOCK_VIDEOS]
            self._touch(segment.array[start : start + BLOCK_VIDEOS].nbytes)
            rows = start + np.flatnonzero(part >= 0)
            yield part[part >= 0], segment.videos(rows)

    def similarities(self, queries: FloatArray, places: PlaceArray | None) -> FloatArray:
        """See `OpenVectors.similarities`."""
        total = len(self._contents.video_ids) if places is None else len(places)
        shape = (total, self._contents.facts.num_clips)
        return similarities_in_blocks(queries, self.blocks(places), places, shape)

    def candidates(
        self, queries: FloatArray, num_videos: int, allowed: NDArray[np.bool_] | None
    ) -> list[PlaceArray] | None:
        """See `OpenVectors.candidates`: the best codes, their vectors looked at exactly, the best videos of these."""
        total = len(self._contents.video_ids)
        chosen = total if allowed is None else int(allowed.sum())
        options = self._contents.facts.options
        if not self._scans or chosen <= options.exact_videos or num_videos * MIN_SHARE > chosen:
            return None
        wanted = num_videos + num_videos // 2 + 16
        # Scores lie closer in a larger corpus, so that more codes come between a video and its place.
        growth = max(1.0, chosen / DENSE_VIDEOS) ** 0.5 * total / chosen
        num_vectors = math.ceil(options.candidate_vectors * num_videos * growth)
        found: list[PlaceArray] = []
        for query in queries:
            best = self._best_videos(query, wanted, num_vectors, allowed)
            if best is None:
                return None
            found.append(best)
        return found

    def _best_videos(
        self, query: FloatArray, wanted: int, num_vectors: int, allowed: NDArray[np.bool_] | None
    ) -> PlaceArray | None:
        while num_vectors <= MAX_VECTORS:
            hits = [
                scan.search(query[None], num_vectors, slots)[0]
                for scan, slots in zip(self._scans, self._slots, strict=True)
            ]
            places, clips = (np.concatenate(column) for column in zip(*hits, strict=True))
            if allowed is not None:
                places, clips = places[allowed[places]], clips[allowed[places]]
            if len(np.unique(places)) >= wanted or num_vectors >= sum(map(len, self._scans)):
                scores = self._scores(query, places, clips)
                order = places[np.argsort(-scores, kind="stable")]
                _, first = np.unique(order, return_index=True)
                return np.sort(order[np.sort(first)[:wanted]])
            num_vectors *= 4
        return None

    def _scores(self, query: FloatArray, places: PlaceArray, clips: PlaceArray) -> FloatArray:
        """Inner products of a query (D,) with single clips: (n,) and (n,) → (n,)."""
        scores = np.empty(len(places), dtype=np.float32)
        keys, rows = self._contents.segment_keys[places], self._contents.segment_rows[places]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        for chunk in np.split(order, starts[1:]):
            if len(chunk):
                self._touch(len(chunk) * FAULT_BYTES)
                segment = self._segments[int(keys[chunk[0]])]
                scores[chunk] = segment.clips(rows[chunk], clips[chunk]) @ query
        return scores

    def _touch(self, num_bytes: int) -> None:
        """Before bytes are read: hand mapped pages back from time to time, so that not all files stay in memory."""
        self._touched += num_bytes
        if self._is_large and self._touched > RESIDENT_BYTES:
            for segment in self._segments.values():
                segment.release()
            self._touched = num_bytes
