"""Features as a user hands them over, in any released form, behind one face; and their way into a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.base import FeatureSource
from dciml.features.base import num_rows as rows_inside
from dciml.features.pooling import l2_normalize
from dciml.features.row_checks import RowsSeen
from dciml.features.sources.arrays import ArrayFolderSource
from dciml.features.sources.bigfile import BigFileSource, is_bigfile
from dciml.features.sources.hdf5 import Hdf5Source
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.store_format import MANIFEST_FILE
from dciml.names import refuse_lookalikes, same_name


class JoinedSource:
    """Rows of several sources on one time grid: each scaled to length 1, then joined, (T, D1 + D2 + …).

    Where the sources differ by a row or two, as released ones do, the longer are cut at the shortest (as in
    moment_detr and lighthouse). The videos are those that all sources hold.

    Raises:
        DataError: no video is in all of them.
    """

    encoder_specs: tuple[str, ...] = ()

    def __init__(
        self, parts: Sequence[FeatureSource], encoder: str | None, rows_per_second: float | None
    ) -> None:
        self._parts = parts
        self.path: Path = parts[0].path
        self.encoder = encoder or "+".join(part.encoder for part in parts)
        rates = {part.rows_per_second for part in parts}
        self.rows_per_second = rows_per_second or (rates.pop() if len(rates) == 1 else None)
        others = [frozenset(part.video_ids) for part in parts[1:]]
        self.video_ids = tuple(v for v in parts[0].video_ids if all(v in other for other in others))
        if not self.video_ids:
            names = ", ".join(str(part.path) for part in parts)
            raise DataError(
                "no video is in all of these features", where=names, mend="check the names of the videos"
            )
        self.durations = {v: s for part in reversed(parts) for v, s in part.durations.items()}
        self.splits = {v: s for part in reversed(parts) for v, s in part.splits.items()}

    def place(self, video_id: str) -> Where:
        """The video's rows in the first source."""
        return self._parts[0].place(video_id)

    def origin(self, video_id: str) -> str | None:
        """As the first source says."""
        return self._parts[0].origin(video_id)

    def num_rows(self, video_id: str) -> int:
        """Rows of a video: those that all sources have."""
        return self.shape(video_id)[0]

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video, those that all sources have, and their width together."""
        shapes = [part.shape(video_id) for part in self._parts]
        return min(rows for rows, _ in shapes), sum(width for _, width in shapes)

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The joined rows of these videos.

        Raises:
            DataError: the sources differ by more than 2 rows and by more than 5 %: they are not on one grid.
        """
        readers = [part.read(video_ids) for part in self._parts]
        for video_id, *rows in zip(video_ids, *readers, strict=True):
            counts = [len(part) for part in rows]
            if max(counts) - min(counts) > max(2, 0.05 * max(counts)):
                what = (
                    f"the video {video_id!r} has {' and '.join(map(str, counts))} rows in the joined features"
                )
                mend = "join features with the same number of rows a second, each written as [rows, width]"
                raise DataError(what, where=self.place(video_id), mend=mend)
            yield np.concatenate([l2_normalize(part[: min(counts)]) for part in rows], axis=1)


_MEDIA = (".avi", ".mp4", ".m4v", ".mov", ".mpg", ".mpeg", ".mkv", ".webm", ".wmv", ".3gp", ".mts", ".flv")
_YOUTUBE = "v_"  # before the id of a video in ActivityNet; some releases leave it out


class RenamedSource:
    """A source under other names; videos that keep theirs are seen through.

    Args:
        inner: the source.
        old_names: for each new id the one that the source knows.
    """

    def __init__(self, inner: FeatureSource, old_names: Mapping[str, str]) -> None:
        self._inner, self._old_names = inner, old_names
        self.path: Path = inner.path
        self.encoder, self.rows_per_second = inner.encoder, inner.rows_per_second
        self.encoder_specs = inner.encoder_specs
        new_names = {old: new for new, old in old_names.items()}
        self.video_ids = tuple(new_names.get(video_id, video_id) for video_id in inner.video_ids)
        self.durations = {new_names.get(v, v): seconds for v, seconds in inner.durations.items()}
        self.splits = {new_names.get(v, v): split for v, split in inner.splits.items()}

    def place(self, video_id: str) -> Where:
        """Where a video's rows lie."""
        return self._inner.place(self._old(video_id))

    def origin(self, video_id: str) -> str | None:
        """As the source says."""
        return self._inner.origin(self._old(video_id))

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""
        return self._inner.num_rows(self._old(video_id))

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width."""
        return self._inner.shape(self._old(video_id))

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos."""
        return self._inner.read([self._old(video_id) for video_id in video_ids])

    def _old(self, video_id: str) -> str:
        return self._old_names.get(video_id, video_id)


def names_in(source: FeatureSource, wanted: Collection[str]) -> dict[str, str]:
    """For names that annotations use and the source does not have, the one name of the source that is meant.

    That is one where only the way accents are written, the media ending or ActivityNet's `v_` differs. A name has
    none where several would do, or where another annotated name (`a.mp4`, `a.avi`) would have the same.

    Raises:
        DataError: two names of the source, or of the annotations, look the same; both are named.
    """
    have = frozenset(source.video_ids)
    refuse_lookalikes(have, Where(source.path))
    refuse_lookalikes(wanted, Where("the annotations"))
    by_form = {same_name(name): name for name in have}
    own_names: dict[str, str] = {}
    for name in frozenset(wanted) - have:
        forms = _forms(same_name(name))
        found = [by_form[form] for form in forms if form in by_form]
        if same_name(name) in by_form:
            own_names[name] = by_form[same_name(name)]
        elif len(found) == 1:
            own_names[name] = found[0]
    uses = Counter(own_names.values())
    return {name: own for name, own in own_names.items() if uses[own] == 1}


def with_names_of(source: FeatureSource, wanted: Collection[str]) -> FeatureSource:
    """The source under the names that annotations use, see `names_in`; names that are in use already stay."""
    old_names = {new: old for new, old in names_in(source, wanted).items() if old not in wanted}
    return RenamedSource(source, old_names) if old_names else source


def _forms(name: str) -> set[str]:
    stem = next((name[: -len(end)] for end in _MEDIA if name.lower().endswith(end)), name)
    bare = stem.removeprefix(_YOUTUBE)
    endings = {stem + end for end in _MEDIA} if stem == name else set()
    return ({stem, bare, _YOUTUBE + bare} | endings) - {name}


_COMMIT_EVERY = 256


class StoreSource:
    """A feature store that exists; its manifest is kept unless it is overruled."""

    def __init__(self, path: Path, encoder: str | None, rows_per_second: float | None) -> None:
        self.path, self._store = path, FeatureStore.open(path)
        manifest = self._store.manifest
        self.encoder = encoder or manifest.encoder
        self.encoder_specs = manifest.encoder_specs if self.encoder == manifest.encoder else ()
        self.rows_per_second = rows_per_second or manifest.rows_per_second
        self.video_ids = self._store.video_ids
        self.durations = {video_id: self._store.duration_seconds(video_id) for video_id in self.video_ids}
        self.splits: Mapping[str, str] = {}

    def place(self, video_id: str) -> Where:
        """The video in the store."""
        return Where(self.path, field=video_id)

    def origin(self, video_id: str) -> str | None:
        """As the store says; for extracted videos the media file."""
        return self._store.source(video_id)

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""
        return self._store.num_rows(video_id)

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width."""
        return self._store.num_rows(video_id), self._store.manifest.width

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos, one after another."""
        return (self._store.rows(video_id) for video_id in video_ids)


def open_features(
    paths: Path | Sequence[Path], name: str, encoder: str | None = None, rows_per_second: float | None = None
) -> FeatureSource:
    """Open features of any form: a store, an HDF5 file, a BigFile folder, a folder of `.npy` or `.npz` files.

    Args:
        paths: one, or several that are joined row by row.
        name: of the data; without `encoder`, features of files that do not say are called `imported:<name>`.
    Raises:
        DataError: none of these forms, or damaged.
    """
    if isinstance(paths, Path):
        return _open_one(paths, encoder, f"imported:{name}", rows_per_second)
    if len(paths) == 1:
        return _open_one(paths[0], encoder, f"imported:{name}", rows_per_second)
    parts = [_open_one(path, None, f"imported:{path.stem}", rows_per_second) for path in paths]
    return JoinedSource(parts, encoder, rows_per_second)


def _open_one(path: Path, encoder: str | None, default: str, rows_per_second: float | None) -> FeatureSource:
    if not path.is_dir():
        return Hdf5Source(path, encoder or default, rows_per_second)
    if is_bigfile(path):
        return BigFileSource(path, encoder or default, rows_per_second)
    if not (path / MANIFEST_FILE).exists() and any(path.glob("*.np[yz]")):
        return ArrayFolderSource(path, encoder or default, rows_per_second)
    return StoreSource(path, encoder, rows_per_second)


def write_store(
    source: FeatureSource,
    store_path: Path,
    video_ids: Collection[str],
    durations: Mapping[str, float],
    *,
    keep_rate: bool = True,
    seen: RowsSeen | None = None,
) -> FeatureStore:
    """Write a store of these videos with these durations, video by video, in the order of the source.

    Args:
        keep_rate: False: the store does not say how many rows a second has. Else rows that begin after the end of
            their video are left out.
        seen: is shown all rows that are written.
    Raises:
        DataError: no video, one without a duration, or rows that a store cannot hold; the message names the place.
    """
    chosen = frozenset(video_ids)
    wanted = [video_id for video_id in source.video_ids if video_id in chosen]
    if not wanted:
        raise DataError(
            "none of the wanted videos has features here", where=source.path, mend="check the ids"
        )
    rows_of = source.read(wanted)
    first = next(rows_of)
    width = int(first.shape[1])
    rate = source.rows_per_second if keep_rate else None
    manifest = StoreManifest(source.encoder, width, rate, source.encoder_specs)
    with FeatureStoreWriter(store_path, manifest, commit_every=_COMMIT_EVERY) as writer:
        for video_id, rows in zip(wanted, chain([first], rows_of), strict=True):
            seconds = durations.get(video_id, source.durations.get(video_id))
            if seconds is None:
                raise unknown_duration(source.place(video_id))
            kept = rows[: rows_inside(seconds, rate)] if rate else rows
            try:
                writer.append(video_id, kept, seconds, source.origin(video_id))
            except DataError as error:  # the store names itself; the user needs the file that is to be mended
                raise DataError(error.what, where=source.place(video_id), mend=error.mend) from error
            if seen is not None:
                seen.add(video_id, kept)
    return FeatureStore.open(store_path)


def unknown_duration(place: Where) -> DataError:
    """The error for a video whose length nothing tells."""
    return DataError(
        "the duration of the video is not known",
        where=place,
        mend="write `duration` into the sentences, set the attribute `duration` of its HDF5 dataset, or say how many "
        "rows a second has with --rows-per-second",
    )
