"""The data folder: the one form of a data set that training, evaluation and search read.

    DIR/data.json        name, format version, counts of each split, notes
    DIR/videos.jsonl     {"video_id", "duration_seconds", "split"}, one line a video and split
    DIR/<split>.jsonl    the queries of a split, as in `datasets.records`
    DIR/features/        the feature store
    DIR/text/            text features that came with a release, if there were any

The corpus of a split is every video of that split, those without a query too.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dciml.datasets.records import (
    check_names,
    line_of_query,
    positive_field,
    read_pairs,
    read_queries,
    read_rows,
    text_field,
    write_queries,
)
from dciml.errors import DataError, Where
from dciml.features import FeatureStore
from dciml.files import atomic_folder, read_json, refuse_taken, write_json, write_json_lines
from dciml.types import Query, TrainingPair, Video

FORMAT_NAME = "dciml data folder"
FORMAT_VERSION = 1
DATA_FILE, VIDEOS_FILE, FEATURES_FOLDER, TEXT_FOLDER = "data.json", "videos.jsonl", "features", "text"
_IMPORT = "import the data again with `dciml import`"


class DataFolder:
    """A data set opened for reading. Everything is joined by id; queries are read when first asked for."""

    def __init__(self, path: Path, description: Mapping[str, Any], store: FeatureStore) -> None:
        self.path, self.store = path, store
        self.name = str(description["name"])
        self.notes: Mapping[str, Any] = description.get("notes", {})
        self.splits: tuple[str, ...] = tuple(description["splits"])
        self._videos = _read_videos(path / VIDEOS_FILE, self.splits, store)
        self._queries: dict[str, tuple[Query, ...]] = {}
        self._pairs: dict[str, tuple[TrainingPair, ...]] = {}

    @classmethod
    def open(cls, path: str | Path) -> DataFolder:
        """Open a data folder and check that its parts fit together.

        Raises:
            DataError: not a data folder, of another format version, a video without features, a video whose
                duration differs from the store's, or a video of an unknown split.
        """
        path = Path(path)
        file = path / DATA_FILE
        if not file.exists():
            what = "this is not a data folder (no data.json)" if path.exists() else "there is no such folder"
            raise DataError(what, where=path, mend="name a data folder, or make one with `dciml import`")
        raw = read_json(file)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT_NAME:
            raise DataError("this does not describe a data folder", where=file, mend=_IMPORT)
        if raw.get("format_version") != FORMAT_VERSION:
            version = raw.get("format_version")
            raise DataError(
                f"the format version is {version!r}, not {FORMAT_VERSION}", where=file, mend=_IMPORT
            )
        if (
            not isinstance(raw.get("name"), str)
            or not isinstance(raw.get("splits"), dict)
            or not raw["splits"]
        ):
            raise DataError("name or splits are missing", where=file, mend=_IMPORT)
        return cls(path, raw, FeatureStore.open(path / FEATURES_FOLDER))

    def videos(self, split: str) -> tuple[Video, ...]:
        """The corpus of a split. Raises DataError: the split is unknown, or has no video."""
        self._check_split(split)
        videos = self._videos.get(split, ())
        if not videos:
            raise DataError(
                f"the corpus of the split {split!r} is empty", where=self.path / VIDEOS_FILE, mend=_IMPORT
            )
        return videos

    def queries(self, split: str) -> tuple[Query, ...]:
        """The queries of a split with their moments: for evaluation, never for training.

        Raises:
            DataError: as `read_queries`; or a query's video is not in the corpus of the split.
        """
        if split not in self._queries:
            durations = {video.video_id: video.duration_seconds for video in self.videos(split)}
            queries = read_queries(self._query_file(split), durations, past_end="refuse").queries
            self._check_corpus(split, queries)
            self._queries[split] = queries
        return self._queries[split]

    def pairs(self, split: str) -> tuple[TrainingPair, ...]:
        """The queries of a split without their moments, which are not even read; errors as `queries`."""
        if split not in self._pairs:
            self._check_split(split)
            pairs = read_pairs(self._query_file(split))
            self._check_corpus(split, pairs)
            self._pairs[split] = pairs
        return self._pairs[split]

    def videos_without_queries(self, split: str) -> tuple[str, ...]:
        """Ids of the corpus that no query asks for. They are part of the corpus; this is for information."""
        asked = {pair.video_id for pair in self.pairs(split)}
        return tuple(video.video_id for video in self.videos(split) if video.video_id not in asked)

    @property
    def features_without_video(self) -> tuple[str, ...]:
        """Ids of the store that no split names. Nothing reads them; this is for information."""
        named = {video.video_id for videos in self._videos.values() for video in videos}
        return tuple(video_id for video_id in self.store.video_ids if video_id not in named)

    def _query_file(self, split: str) -> Path:
        return self.path / f"{split}.jsonl"

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DataError(
                f"there is no split {split!r}",
                where=self.path,
                mend=f"choose one of the known splits: {known}",
            )

    def _check_corpus(self, split: str, items: Sequence[Query] | Sequence[TrainingPair]) -> None:
        file = self._query_file(split)
        corpus = {video.video_id for video in self.videos(split)}
        for item in items:
            if item.video_id not in corpus:
                raise DataError(
                    f"the query {item.query_id!r} asks for the video {item.video_id!r}, "
                    f"which the corpus of the split does not hold{_nearest(item.video_id, corpus)}",
                    where=Where(file, line_of_query(file, item.query_id), "video_id"),
                    mend=f"add the video to {VIDEOS_FILE} and its features to the store, or remove the query",
                )


def _read_videos(file: Path, splits: Sequence[str], store: FeatureStore) -> dict[str, tuple[Video, ...]]:
    found: dict[str, list[Video]] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in read_rows(file):
        where = Where(file, number)
        check_names(row, ("video_id", "duration_seconds", "split"), where)
        duration = positive_field(row, "duration_seconds", where)
        video = Video(text_field(row, "video_id", where), duration, text_field(row, "split", where))
        _check_video(video, splits, store, where)
        if (video.split, video.video_id) in seen:
            what = f"the video {video.video_id!r} comes twice in the split {video.split!r}"
            raise DataError(what, where=Where(file, number, "video_id"), mend="remove one of the lines")
        seen.add((video.split, video.video_id))
        found.setdefault(video.split, []).append(video)
    return {split: tuple(videos) for split, videos in found.items()}


def _check_video(video: Video, splits: Sequence[str], store: FeatureStore, where: Where) -> None:
    if video.split not in splits:
        place = Where(where.path, where.line, "split")
        raise DataError(
            f"the split {video.split!r} is unknown", where=place, mend=f"write one of {', '.join(splits)}"
        )
    if video.video_id not in store:
        raise DataError(
            f"the video {video.video_id!r} has no features{_nearest(video.video_id, store.video_ids)}",
            where=Where(where.path, where.line, "video_id"),
            mend=f"add its features to {store.path}, or remove the line",
        )
    stored = store.duration_seconds(video.video_id)
    if abs(stored - video.duration_seconds) > 1e-6 * stored:
        raise DataError(
            f"the video lasts {video.duration_seconds} s here and {stored} s in the feature store",
            where=Where(where.path, where.line, "duration_seconds"),
            mend=_IMPORT,
        )


def _nearest(video_id: str, known: Sequence[str] | set[str]) -> str:
    near = difflib.get_close_matches(video_id, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_data_folder(
    path: str | Path,
    name: str,
    queries: Mapping[str, Sequence[Query]],
    videos: Sequence[Video],
    build_store: Callable[[Path], object],
    *,
    build_text: Callable[[Path], object] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> DataFolder:
    """Write a data folder beside its place and rename it once everything is there and fits together.

    Args:
        path: must not exist yet, or be an empty folder.
        name: of the data set.
        queries: of each split; the splits are its keys.
        videos: each names its split.
        build_store: is called with the folder in which it is to make a feature store of these videos.
        build_text: is called with a new folder in which it is to put text features that came with the data.
        notes: where the data came from; JSON values.
    Raises:
        DataError: the place is taken, a split has a name that cannot be a file's, or the parts do not fit.
    """
    path = Path(path)
    refuse_taken(path)
    for split in queries:
        if not _SPLIT_NAME.fullmatch(split) or split == Path(VIDEOS_FILE).stem:
            mend = "use letters, digits, '-' and '_' (but not 'videos')"
            raise DataError(f"a split cannot be named {split!r}", where=path, mend=mend)
    with atomic_folder(path) as partial:
        build_store(partial / FEATURES_FOLDER)
        if build_text is not None:
            (partial / TEXT_FOLDER).mkdir()
            build_text(partial / TEXT_FOLDER)
        _write_files(partial, name, queries, videos, notes or {})
        _check(DataFolder.open(partial))
    return DataFolder.open(path)


def _write_files(
    folder: Path,
    name: str,
    queries: Mapping[str, Sequence[Query]],
    videos: Sequence[Video],
    notes: Mapping[str, Any],
) -> None:
    durations = {video.video_id: video.duration_seconds for video in videos}
    rows = [
        {"video_id": video.video_id, "duration_seconds": video.duration_seconds, "split": video.split}
        for video in videos
    ]
    write_json_lines(folder / VIDEOS_FILE, rows)
    for split, items in queries.items():
        write_queries(folder / f"{split}.jsonl", items, durations)
    counts = {
        split: {"videos": sum(video.split == split for video in videos), "queries": len(items)}
        for split, items in queries.items()
    }
    head = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, "name": name}
    write_json(folder / DATA_FILE, head | {"splits": counts, "notes": dict(notes)})


def _check(folder: DataFolder) -> None:
    for split in folder.splits:
        folder.videos(split)
        folder.queries(split)


Item = TypeVar("Item", TrainingPair, Query)


def split_off_validation(
    items: Sequence[Item], fraction: float, seed: int
) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Set whole videos aside, so that no sentence of a validation video is trained on.

    Which videos depends on the seed and their ids alone, not on the order of the items.

    Args:
        items: pairs or queries.
        fraction: of the videos, above 0 and below 1; at least one video goes to either side.
    Returns: the items that stay for training, in order, and the sorted ids of the validation videos.
    Raises:
        DataError: fewer than two videos.
        ValueError: the fraction is not between 0 and 1.

    >>> pairs = [TrainingPair(f"q{i}", f"v{i % 4}", "a dog runs") for i in range(8)]
    >>> kept, validation = split_off_validation(pairs, 0.25, seed=1)
    >>> len(kept), len(validation)
    (6, 1)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction must lie between 0 and 1, not {fraction}")
    videos = sorted({item.video_id for item in items}, key=lambda video_id: _draw(seed, video_id))
    if len(videos) < 2:
        raise DataError(
            f"a validation part cannot be cut off from {len(videos)} video(s)",
            mend="give at least two training videos, or name a validation split",
        )
    count = min(max(round(fraction * len(videos)), 1), len(videos) - 1)
    validation = frozenset(videos[:count])
    return tuple(item for item in items if item.video_id not in validation), tuple(sorted(validation))


def _draw(seed: int, video_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{video_id}".encode()).digest()
