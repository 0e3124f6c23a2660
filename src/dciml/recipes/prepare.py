"""Import: annotation files and features of whatever origin → a data folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dciml.datasets.activitynet import read_activitynet
from dciml.datasets.charades_sta import read_charades_durations, read_charades_sta
from dciml.datasets.folder import DataFolder
from dciml.datasets.folder_writer import write_data_folder
from dciml.datasets.moments import BadMoments, PastEnd
from dciml.datasets.records import QueryFile, read_queries, same_duration
from dciml.errors import DataError, Where
from dciml.features.source import FeatureSource, open_features
from dciml.types import Query, Video


@dataclass(frozen=True)
class ImportOptions:
    """How strict an import is, and what a store's manifest is to say.

    `allow_missing` drops queries whose video has no features; `allow_extra` leaves out features that no split
    names. Both are errors otherwise. For `past_end` and `bad_moments` see `datasets.moments`.
    """

    past_end: PastEnd = "clip"
    bad_moments: BadMoments = "refuse"
    allow_missing: bool = False
    allow_extra: bool = False
    encoder: str | None = None
    rows_per_second: float | None = None


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one imported split."""

    videos: int
    queries: int
    clipped_moments: int
    dropped_moments: int
    videos_without_queries: int
    queries_without_features: int


@dataclass(frozen=True)
class ImportSummary:
    """What an import made: the folder, the counts of each split, and how many features it left out."""

    folder: DataFolder
    splits: Mapping[str, SplitSummary]
    features_left_out: int


@dataclass(frozen=True)
class SplitInput:
    """One split as read: its file, its queries, and the ids of its corpus."""

    path: Path
    file: QueryFile
    corpus: tuple[str, ...]


def prepare_benchmark(folder: Path, out: Path, name: str, options: ImportOptions) -> ImportSummary:
    """Import `videos.h5` (attributes `duration` and `split`) with a `<split>.jsonl` of records for each."""
    source = open_features(folder / "videos.h5", name, options.encoder, options.rows_per_second)
    for video_id in source.video_ids:
        if video_id not in source.splits:
            place = Where(source.path, field=video_id)
            raise DataError("the video belongs to no split", where=place, mend="set its attribute `split`")
    splits = sorted(set(source.splits.values()), key=lambda split: (split != "train", split))
    inputs: dict[str, SplitInput] = {}
    for split, path, file in _read_records(
        {split: folder / f"{split}.jsonl" for split in splits}, source, options
    ):
        corpus = tuple(video_id for video_id in source.video_ids if source.splits[video_id] == split)
        inputs[split] = SplitInput(path, file, corpus)
    return _assemble(out, name, inputs, source, options)


def prepare_records(
    files: Mapping[str, Path], features: Path, out: Path, name: str, options: ImportOptions
) -> ImportSummary:
    """Import records, a file for each split; the corpus of a split is the videos that its queries name."""
    source = open_features(features, name, options.encoder, options.rows_per_second)
    inputs = {
        split: SplitInput(path, file, _asked_videos(file))
        for split, path, file in _read_records(files, source, options)
    }
    return _assemble(out, name, inputs, source, options)


def prepare_charades_sta(
    files: Mapping[str, tuple[Path, Path]], features: Path, out: Path, name: str, options: ImportOptions
) -> ImportSummary:
    """Import Charades-STA; `files` gives each split its text file and the CSV file with its durations."""
    source = open_features(features, name, options.encoder, options.rows_per_second)
    inputs: dict[str, SplitInput] = {}
    for split, (path, csv_path) in files.items():
        durations = read_charades_durations(csv_path)
        file = read_charades_sta(path, split, durations, options.past_end, options.bad_moments)
        inputs[split] = SplitInput(path, file, _asked_videos(file))
    return _assemble(out, name, inputs, source, options)


def prepare_activitynet(
    files: Mapping[str, Path], features: Path, out: Path, name: str, options: ImportOptions
) -> ImportSummary:
    """Import ActivityNet Captions, a file for each split; every video of a file is in the corpus."""
    source = open_features(features, name, options.encoder, options.rows_per_second)
    inputs: dict[str, SplitInput] = {}
    for split, path in files.items():
        file = read_activitynet(path, split, options.past_end, options.bad_moments)
        inputs[split] = SplitInput(path, file, tuple(file.durations))
    return _assemble(out, name, inputs, source, options)


def _read_records(
    files: Mapping[str, Path], source: FeatureSource, options: ImportOptions
) -> Iterator[tuple[str, Path, QueryFile]]:
    durations = dict(source.durations)
    for split, path in files.items():
        file = read_queries(path, durations, options.past_end, options.bad_moments)
        durations = {**file.durations, **durations}
        yield split, path, file


def _asked_videos(file: QueryFile) -> tuple[str, ...]:
    return tuple(dict.fromkeys(query.video_id for query in file.queries))


def _assemble(
    out: Path, name: str, inputs: Mapping[str, SplitInput], source: FeatureSource, options: ImportOptions
) -> ImportSummary:
    have = frozenset(source.video_ids)
    durations = _joined_durations(inputs, source)
    queries: dict[str, tuple[Query, ...]] = {}
    videos: list[Video] = []
    for split, part in inputs.items():
        queries[split] = _with_features(split, part, source, have, options)
        corpus = [video_id for video_id in part.corpus if video_id in have]
        _check_corpus(split, part, corpus, source, options)
        videos += [Video(video_id, _known(video_id, durations, source), split) for video_id in corpus]
    used = frozenset(video.video_id for video in videos)
    num_extra = _count_extra(source, used, options)
    annotations = {split: part.path.name for split, part in inputs.items()}
    folder = write_data_folder(
        out,
        name,
        queries,
        videos,
        partial(source.copy, video_ids=used, durations=durations),
        notes={
            "features": source.path.name,
            "annotations": annotations,
            "clipped_moments": {split: part.file.num_clipped for split, part in inputs.items()},
            "dropped_moments": {split: part.file.num_dropped_moments for split, part in inputs.items()},
        },
    )
    return ImportSummary(
        folder, {split: _summary(folder, split, inputs[split]) for split in inputs}, num_extra
    )


def _joined_durations(inputs: Mapping[str, SplitInput], source: FeatureSource) -> dict[str, float]:
    """Durations of annotations and features, which must agree about.

    Those of the annotations count, since moments refer to them; where two files differ a little, the longer
    counts, so that no moment ends after its video.
    """
    annotated: dict[str, float] = {}
    for part in inputs.values():
        for video_id, seconds in part.file.durations.items():
            before = annotated.get(video_id, source.durations.get(video_id, seconds))
            if not same_duration(seconds, before):
                raise DataError(
                    f"the video {video_id!r} lasts {seconds} s here and {before} s elsewhere",
                    where=_place(part, video_id),
                    mend="check that annotations and features are of the same cut of the video",
                )
            annotated[video_id] = max(seconds, annotated.get(video_id, seconds))
    return {**source.durations, **annotated}


def _with_features(
    split: str, part: SplitInput, source: FeatureSource, have: frozenset[str], options: ImportOptions
) -> tuple[Query, ...]:
    corpus = frozenset(part.corpus)
    for query in part.file.queries:
        if query.video_id not in have and not options.allow_missing:
            raise _no_features(query.video_id, source, _place(part, query.video_id))
        if query.video_id in have and query.video_id not in corpus:
            raise DataError(
                f"the query {query.query_id!r} asks for the video {query.video_id!r}, "
                f"which is in the split {source.splits.get(query.video_id)!r}, not in {split!r}",
                where=_place(part, query.video_id),
                mend="move the query, or correct the attribute `split` of the video",
            )
    return tuple(query for query in part.file.queries if query.video_id in have)


def _check_corpus(
    split: str, part: SplitInput, corpus: Sequence[str], source: FeatureSource, options: ImportOptions
) -> None:
    if not corpus:
        raise DataError(
            f"none of the videos of the split {split!r} has features, so its corpus is empty",
            where=part.path,
            mend=f"check that {source.path} names the videos in the same way",
        )
    missing = frozenset(part.corpus) - frozenset(corpus)
    if missing and not options.allow_missing:
        raise _no_features(min(missing), source, _place(part, min(missing)))


def _place(part: SplitInput, video_id: str) -> Where:
    """Where a file first names a video."""
    asking = (query.query_id for query in part.file.queries if query.video_id == video_id)
    line = part.file.lines.get(next(asking, ""))
    return Where(part.path, line, "video_id" if line else video_id)


def _no_features(video_id: str, source: FeatureSource, place: Where) -> DataError:
    return DataError(
        f"the video {video_id!r} has no features in {source.path}",
        where=place,
        mend="add its features, or drop what refers to such videos with --allow-missing",
    )


def _known(video_id: str, durations: Mapping[str, float], source: FeatureSource) -> float:
    if video_id not in durations:
        raise DataError(
            "the duration of the video is not known",
            where=Where(source.path, field=video_id),
            mend="set the attribute `duration` of its dataset, or write `duration` into the records",
        )
    return durations[video_id]


def _count_extra(source: FeatureSource, used: frozenset[str], options: ImportOptions) -> int:
    extra = [video_id for video_id in source.video_ids if video_id not in used]
    if extra and not options.allow_extra:
        raise DataError(
            f"features of {len(extra)} video(s) belong to no split, for example {extra[0]!r}",
            where=Where(source.path, field=extra[0]),
            mend="name the split that holds them, or leave them out with --allow-extra",
        )
    return len(extra)


def _summary(folder: DataFolder, split: str, part: SplitInput) -> SplitSummary:
    num_queries = len(folder.pairs(split))
    return SplitSummary(
        videos=len(folder.videos(split)),
        queries=num_queries,
        clipped_moments=part.file.num_clipped,
        dropped_moments=part.file.num_dropped_moments,
        videos_without_queries=len(folder.videos_without_queries(split)),
        queries_without_features=len(part.file.queries) - num_queries,
    )
