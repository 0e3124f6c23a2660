"""Import: annotations and features of whatever origin → a data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from dciml.datasets import (
    CPL,
    DIDEMO,
    TABLE_SUFFIXES,
    BadMoments,
    Counts,
    DataFolder,
    PastEnd,
    PublishedSet,
    QueryFile,
    read_annotations,
    read_csv_queries,
    read_didemo,
    read_queries,
    same_duration,
    write_data_folder,
)
from dciml.errors import DataError, Where
from dciml.features import (
    WORD_VECTORS_FILE,
    FeatureSource,
    RowsSeen,
    check_shapes,
    find_mismatch,
    names_in,
    open_features,
    read_cpl_vectors,
    refuse_mismatch,
    unknown_duration,
    with_names_of,
    write_store,
    write_word_vectors,
)
from dciml.names import nearest_names
from dciml.recipes.trained_on import shared_with_training
from dciml.types import Query, Video

Features = Path | Sequence[Path]
RateMismatch = Literal["refuse", "rate", "spread"]


@dataclass(frozen=True)
class ImportOptions:
    """How strict an import is, and what a store's manifest is to say.

    `allow_missing` drops queries whose video has no features; `allow_extra` leaves out features that no split
    names. Both are errors otherwise. `strict_counts` makes other counts than the published ones an error. For
    `past_end` and `bad_moments` see `datasets.moments`. Where rows, rows per second and lengths do not agree,
    `rate_mismatch` refuses; or leaves row i at i / rate; or drops the rate, and the rows are spread over each video.
    """

    past_end: PastEnd = "clip"
    bad_moments: BadMoments = "refuse"
    allow_missing: bool = False
    allow_extra: bool = False
    strict_counts: bool = False
    encoder: str | None = None
    rows_per_second: float | None = None
    rate_mismatch: RateMismatch = "refuse"


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one imported split."""

    videos: int
    queries: int
    clipped_moments: int
    dropped_moments: int
    videos_without_queries: int
    queries_without_features: int
    queries_without_moments: int


@dataclass(frozen=True)
class ImportSummary:
    """What an import made: the folder, the counts of each split, how many features it left out.

    `warnings` says where counts are not the published ones, and what of the features may spoil an answer.
    """

    folder: DataFolder
    splits: Mapping[str, SplitSummary]
    features_left_out: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitInput:
    """One split as read: its file, its queries, the ids of its corpus, and the counts that must come out."""

    path: Path
    file: QueryFile
    corpus: tuple[str, ...]
    expected: Counts | None = None


def prepare_benchmark(folder: Path, out: Path, name: str, options: ImportOptions) -> ImportSummary:
    """Import `videos.h5` (attributes `duration` and `split`) with a `<split>.jsonl` of records for each."""
    source = open_features(folder / "videos.h5", name, options.encoder, options.rows_per_second)
    for video_id in source.video_ids:
        if video_id not in source.splits:
            place = Where(source.path, field=video_id)
            raise DataError("the video belongs to no split", where=place, mend="set its attribute `split`")
    splits = sorted(set(source.splits.values()), key=lambda split: (split != "train", split))
    inputs: dict[str, SplitInput] = {}
    for split, path, file in _read_own(
        {split: folder / f"{split}.jsonl" for split in splits}, source, options
    ):
        corpus = tuple(video_id for video_id in source.video_ids if source.splits[video_id] == split)
        inputs[split] = SplitInput(path, file, corpus)
    return assemble(out, name, inputs, source, options)


def prepare_records(
    files: Mapping[str, Path], features: Features, out: Path, name: str, options: ImportOptions
) -> ImportSummary:
    """Import one's own sentences, a file for each split: a table (`.csv`, `.tsv`), JSON lines, or what an annotation
    tool exports (`.json`).

    The corpus of a split is the videos that its queries name. A video keeps the name that its features have, also where
    a table gives it the ending of its file: the data folder, the feature store and an index of either agree.
    """
    source = open_features(features, name, options.encoder, options.rows_per_second)
    # Once for the names alone: what a moment must fit into is known only when the features are found.
    files_read = (_reader(path)(path, bad_moments="drop") for path in files.values())
    asked = dict.fromkeys(query.video_id for file in files_read for query in file.queries)
    names = names_in(source, asked)
    check_shapes(source, [names.get(video_id, video_id) for video_id in asked])
    inputs = {
        split: SplitInput(path, file, _asked_videos(file))
        for split, path, file in _read_own(files, source, options, names)
    }
    return assemble(out, name, inputs, source, options)


class _Reader(Protocol):
    def __call__(
        self,
        path: Path,
        durations: Mapping[str, float] | None = None,
        past_end: PastEnd = "clip",
        bad_moments: BadMoments = "refuse",
    ) -> QueryFile: ...


def _reader(path: Path) -> _Reader:
    suffix = path.suffix.lower()
    return (
        read_csv_queries
        if suffix in TABLE_SUFFIXES
        else read_annotations
        if suffix == ".json"
        else read_queries
    )


def _read_own(
    files: Mapping[str, Path],
    source: FeatureSource,
    options: ImportOptions,
    names: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Path, QueryFile]]:
    """Read the splits; `names` gives those of the source for videos that the files call otherwise."""
    names = names or {}
    durations = dict(source.durations)
    for split, path in files.items():
        read = partial(_read_renamed, path, names)
        if source.rows_per_second:
            stated = read(durations, bad_moments="drop")
            unknown = set(_asked_videos(stated)) - stated.durations.keys() - durations.keys()
            durations |= {v: _estimated_seconds(v, source) for v in unknown & set(source.video_ids)}
        file = read(durations, options.past_end, options.bad_moments)
        durations = {**file.durations, **durations}
        yield split, path, file


def _read_renamed(
    path: Path,
    names: Mapping[str, str],
    durations: Mapping[str, float],
    past_end: PastEnd = "clip",
    bad_moments: BadMoments = "refuse",
) -> QueryFile:
    theirs = {name: durations[own] for name, own in names.items() if own in durations}
    return _reader(path)(path, {**durations, **theirs}, past_end, bad_moments).renamed(names)


def _estimated_seconds(video_id: str, source: FeatureSource) -> float:
    """The length that the number of rows tells; nothing else does. Raises DataError: no fixed rate is known."""
    if not source.rows_per_second:
        raise unknown_duration(source.place(video_id))
    return source.num_rows(video_id) / source.rows_per_second


def _asked_videos(file: QueryFile) -> tuple[str, ...]:
    return tuple(dict.fromkeys(query.video_id for query in file.queries))


def assemble(
    out: Path,
    name: str,
    inputs: Mapping[str, SplitInput],
    source: FeatureSource,
    options: ImportOptions,
    build_text: Callable[[Path], object] | None = None,
) -> ImportSummary:
    """Join what was read with the features and write the data folder.

    Args:
        inputs: what was read, for each split.
        build_text: see `write_data_folder`.
    Raises:
        DataError: a video without features or without a known duration, durations that do not agree, an empty corpus,
            and what else the options do not allow.
    """
    have = frozenset(source.video_ids)
    durations = _joined_durations(inputs, source)
    queries: dict[str, tuple[Query, ...]] = {}
    videos: list[Video] = []
    summaries: dict[str, SplitSummary] = {}
    warnings: list[str] = []
    for split, part in inputs.items():
        _check_features(split, part, source, have, options)
        queries[split] = tuple(query for query in part.file.queries if query.video_id in have)
        corpus = [video_id for video_id in part.corpus if video_id in have]
        videos += [
            Video(video_id, durations.get(video_id) or _estimated_seconds(video_id, source), split)
            for video_id in corpus
        ]
        summaries[split] = _summary(part, queries[split], corpus)
        warnings += _check_counts(split, part, Counts(len(corpus), len(queries[split])), options)
    used = {video.video_id: video.duration_seconds for video in videos}
    num_extra = _count_extra(source, frozenset(used), options)
    check_shapes(source, used)
    warnings += _check_rate(source, used, options)
    seen = RowsSeen(silence_is_known=source.encoder.startswith("text:"))
    folder = write_data_folder(
        out,
        name,
        queries,
        videos,
        partial(
            write_store,
            source,
            video_ids=used,
            durations=used,
            keep_rate=options.rate_mismatch != "spread",
            seen=seen,
        ),
        build_text=build_text,
        notes={
            "features": source.path.name,
            "annotations": {split: part.path.name for split, part in inputs.items()},
            "clipped_moments": {split: part.file.num_clipped for split, part in inputs.items()},
            "dropped_moments": {split: part.file.num_dropped_moments for split, part in inputs.items()},
        },
    )
    warnings += [*seen.warnings(), *shared_with_training(folder)]
    return ImportSummary(folder, summaries, num_extra, tuple(warnings))


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


def _check_features(
    split: str, part: SplitInput, source: FeatureSource, have: frozenset[str], options: ImportOptions
) -> None:
    corpus = frozenset(part.corpus)
    missing = [v for v in dict.fromkeys((*_asked_videos(part.file), *part.corpus)) if v not in have]
    if corpus and not corpus & have:
        raise DataError(
            f"none of the videos of the split {split!r} has features, so its corpus is empty",
            where=part.path,
            mend=f"name the videos as {source.path} does, for example {source.video_ids[0]!r}",
        )
    if missing and not options.allow_missing:
        near = nearest_names(missing[0], have)
        nearest = f"name it as the features do ({near}), " if near else ""
        others = f", nor have {len(missing) - 1:,} others of this split" if len(missing) > 1 else ""
        raise DataError(
            f"the video {missing[0]!r} has no features in {source.path}{others}",
            where=_place(part, missing[0]),
            mend=f"{nearest}add their features, or drop what refers to such videos with --allow-missing",
        )
    for query in part.file.queries:
        if query.video_id in have and query.video_id not in corpus:
            raise DataError(
                f"the query {query.query_id!r} asks for the video {query.video_id!r}, "
                f"which is in the split {source.splits.get(query.video_id)!r}, not in {split!r}",
                where=_place(part, query.video_id),
                mend="move the query, or correct the attribute `split` of the video",
            )


def _check_counts(split: str, part: SplitInput, found: Counts, options: ImportOptions) -> list[str]:
    if part.expected is None or part.expected.agree(found):
        return []
    what = f"the split {split!r} should have {part.expected}; found {found}"
    if options.strict_counts:
        mend = "use the released files and the features of all videos, or leave out --strict-counts"
        raise DataError(what, where=part.path, mend=mend)
    return [what]


def _check_rate(source: FeatureSource, durations: Mapping[str, float], options: ImportOptions) -> list[str]:
    found = find_mismatch(source, durations)
    if found is None:
        return []
    if options.rate_mismatch == "refuse":
        raise refuse_mismatch(source, durations, found)
    done = {"rate": "row i is at i / rate", "spread": "rows are spread evenly over each video"}
    return [f"{found}; as you asked, {done[options.rate_mismatch]}"]


def _place(part: SplitInput, video_id: str) -> Where:
    """Where a file first names a video."""
    asking = (query.query_id for query in part.file.queries if query.video_id == video_id)
    line = part.file.lines.get(next(asking, ""))
    return Where(part.path, line, "video_id" if line else video_id)


def _count_extra(source: FeatureSource, used: frozenset[str], options: ImportOptions) -> int:
    extra = [video_id for video_id in source.video_ids if video_id not in used]
    if extra and not options.allow_extra:
        raise DataError(
            f"features of {len(extra)} video(s) belong to no split, for example {extra[0]!r}",
            where=Where(source.path, field=extra[0]),
            mend="name the split that holds them, or leave them out with --allow-extra",
        )
    return len(extra)


def _summary(part: SplitInput, queries: Sequence[Query], videos: Sequence[str]) -> SplitSummary:
    return SplitSummary(
        videos=len(videos),
        queries=len(queries),
        clipped_moments=part.file.num_clipped,
        dropped_moments=part.file.num_dropped_moments,
        videos_without_queries=len(set(videos) - {query.video_id for query in queries}),
        queries_without_features=len(part.file.queries) - len(queries),
        queries_without_moments=sum(not query.moments for query in queries),
    )


VECTORS_FILE = "glove.pkl"


def prepare_published(
    data: PublishedSet,
    folder: Path,
    features: Features,
    out: Path,
    options: ImportOptions,
    splits: Sequence[str] = (),
) -> ImportSummary:
    """Import a published data set; every video of a file is in the corpus of its split.

    Args:
        folder: holds the annotations under their released names; splits whose files are not there are left out.
        features: files of any form that `open_features` reads.
        splits: only these; default: all.
    Raises:
        DataError: as `assemble`; or a split that is asked for is unknown or not there.
    """
    files = _chosen(data, folder, splits)
    read = {
        split: data.read(path, split, options.past_end, options.bad_moments) for split, path in files.items()
    }
    source = open_features(features, data.name, options.encoder, options.rows_per_second)
    source = with_names_of(source, [video_id for file in read.values() for video_id in file.durations])
    if data is DIDEMO and source.durations:
        read = {split: _didemo(path, split, source, options) for split, path in files.items()}
    inputs = {
        split: SplitInput(path, read[split], tuple(read[split].durations), data.expected(split, path))
        for split, path in files.items()
    }
    return assemble(out, data.name, inputs, source, options, _word_vectors(folder) if data is CPL else None)


def _chosen(data: PublishedSet, folder: Path, splits: Sequence[str]) -> dict[str, Path]:
    found = data.find(folder)
    for split in splits:
        if split not in found:
            wanted = " or ".join(data.splits.get(split, ()))
            what = f"there is no file of the split {split!r}"
            mend = f"put {wanted} there" if wanted else f"choose one of {', '.join(data.splits)}"
            raise DataError(what, where=folder, mend=mend)
    return {split: path for split, path in found.items() if not splits or split in splits}


def _didemo(path: Path, split: str, source: FeatureSource, options: ImportOptions) -> QueryFile:
    """DiDeMo again, with the true lengths of its videos; the release only counts five-second chunks."""
    return read_didemo(path, split, options.past_end, options.bad_moments, source.durations)


def _word_vectors(folder: Path) -> Callable[[Path], object] | None:
    file = folder / VECTORS_FILE
    if not file.is_file():
        return None
    words, vectors = read_cpl_vectors(file)
    return lambda text: write_word_vectors(text / WORD_VECTORS_FILE, words, vectors)
