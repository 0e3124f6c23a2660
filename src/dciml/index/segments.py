"""Segments: files of fused clip vectors, written once and mapped into memory; and those of one committed state.

A segment holds (V, S, D) numbers, float32 or float16, one video after another, and nothing else.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.files import atomic_path
from dciml.index.backend import FloatArray, PlaceArray, VideoBlock, similarities_in_blocks
from dciml.index.catalogue import Contents
from dciml.index.codes import CodeArray, Coder, SegmentScan, num_codes
from dciml.index.references import check_inside

LARGEST = 65_504.0  # of a vector's numbers, in size: that of float16, so that inner products stay finite
# Without its sign a number is the larger, the larger its bits are as a whole number; infinity and NaN are the largest.
_BITS = {"float32": (np.uint32, 0x7FFF_FFFF), "float16": (np.uint16, 0x7FFF)}
_CHECK_NUMBERS = 1 << 20


class Segment:
    """A segment opened for reading. It stays readable when another process deletes its file.

    Raises:
        ModelError: the file is missing, a link out of the index, or of another size than the catalogue says.
    """

    def __init__(self, file: Path, shape: tuple[int, int, int], dtype: str) -> None:
        self._file, self.is_checked = file, False
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        check_inside(file)
        try:
            with file.open("rb") as handle:
                found = os.fstat(handle.fileno()).st_size
                if found != expected or not found:
                    raise ModelError(
                        f"{file}: the vectors file is damaged ({found} bytes, not {expected}); restore a backup, "
                        "or build the index again."
                    )
                self._map = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
        except FileNotFoundError as error:
            raise ModelError(
                f"{file}: the vectors file is missing; restore a backup, or build the index again."
            ) from error
        self.array: NDArray[np.generic] = np.frombuffer(self._map, dtype=dtype).reshape(shape)

    def check(self) -> None:
        """Read the whole segment once, and refuse it when a number is NaN or out of range.

        Raises:
            ModelError: there is such a number.
        """
        flat = self.array.reshape(-1)
        for start in range(0, 0 if self.is_checked else len(flat), _CHECK_NUMBERS):
            self._check_part(flat[start : start + _CHECK_NUMBERS])
        self.is_checked = True

    def videos(self, rows: NDArray[np.int64]) -> FloatArray:
        """Vectors of videos: (n,) rows → (n, S, D), a copy. Raises ModelError: a number is NaN or out of range."""
        return self._checked_copy(self.array[rows])

    def clips(self, rows: NDArray[np.int64], clips: NDArray[np.int64]) -> FloatArray:
        """Vectors of single clips: (n,) and (n,) → (n, D), a copy. Raises ModelError as `videos`."""
        # Without this each clip that is not cached reads 128 KB of its surroundings from the disk.
        self._map.madvise(mmap.MADV_RANDOM)
        copied = self._checked_copy(self.array[rows, clips])
        # All else reads whole stretches, some of it straight from `array`.
        self._map.madvise(mmap.MADV_NORMAL)
        return copied

    def _checked_copy(self, part: NDArray[np.generic]) -> FloatArray:
        if not self.is_checked:
            self._check_part(part)
        copied: FloatArray = part.astype(np.float32, copy=False)
        return copied

    def _check_part(self, part: NDArray[np.generic]) -> None:
        if not in_range(part):
            raise ModelError(
                f"{self._file}: the vectors file holds a number that is NaN or out of range; `dciml index-verify` "
                "names the videos; restore a backup, or build the index again."
            )

    def release(self) -> None:
        """Hand mapped pages back to the system, which still caches them."""
        self._map.madvise(mmap.MADV_DONTNEED)


def in_range(numbers: NDArray[np.generic]) -> bool:
    """Are all of these float32 or float16 finite and at most `LARGEST` in size? One pass over their bits."""
    unsigned, mask = _BITS[numbers.dtype.name]
    limit = int(np.array(LARGEST, dtype=numbers.dtype).view(unsigned))
    return not numbers.size or int((numbers.view(unsigned) & unsigned(mask)).max()) <= limit


def write_segment(file: Path, blocks: Iterable[FloatArray], dtype: str) -> list[int]:
    """Write blocks of videos (n, S, D) atomically. Returns: the CRC-32 of each video's bytes on disk."""
    checksums = []
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        for block in blocks:
            stored = np.ascontiguousarray(block, dtype=dtype)
            checksums += [zlib.crc32(video.data) for video in stored]
            handle.write(stored.data)
    return checksums


BLOCK_VIDEOS = 1024
LARGE_BYTES = 1 << 31  # files of vectors up to this size may stay mapped as a whole
RESIDENT_BYTES = 1 << 28  # of larger ones, about so much is mapped at a time
FAULT_BYTES = 1 << 16  # the first touch of a page maps its neighbours too
CHECKED_BYTES = (
    1 << 28
)  # up to this many bytes of vectors are checked on opening; more, when they are first read
MAX_SCANS = 4
MAX_VECTORS = 1 << 17  # candidates a query beyond which looking at every wanted video is cheaper
DENSE_VIDEOS = 20_000  # from here on more candidates are taken, as the root of the number of videos
MIN_SHARE = 4  # codes are used unless more than one video in this many is asked for


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
