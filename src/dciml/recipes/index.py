"""Build an index of the videos of a feature store, add videos to it, and take videos out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dciml.datasets import DATA_FILE, DataFolder
from dciml.errors import DataError
from dciml.features import FeatureStore, WindowedStore, split_long, whole_id
from dciml.files import atomic_folder, refuse_taken
from dciml.index import ClipIndex, IndexOptions, VideoDetails
from dciml.names import same_name
from dciml.search import Engine, WindowedIds

if TYPE_CHECKING:
    from dciml.model_folder import Model

BATCH_VIDEOS = 64  # encoded by the model at a time
COMMIT_VIDEOS = 4096  # entered into the index at a time

OnProgress = Callable[[int, int], None]
"""Is told how many videos are done, and of how many."""


def build_index(
    model: Model,
    features: Path,
    out: Path,
    *,
    split: str | None = None,
    tags: Sequence[str] = (),
    store: str | None = None,
    may_be_empty: bool = False,
    on_progress: OnProgress | None = None,
) -> ClipIndex:
    """Make an index folder; it appears whole or not at all. Long videos go in as windows (`model.windows`).

    Args:
        features: a feature store, or a data folder.
        out: a folder that does not exist yet, or is empty.
        split: of a data folder, the split whose videos are indexed; None: all videos.
        tags: for all these videos.
        store: `milvus:URI` to keep the vectors in a database.
        may_be_empty: features without any video make an empty index.
    Raises:
        DataError: `out` is taken, or the features cannot be read.
        ModelError: the model was trained on features of another encoder.
    """
    refuse_taken(out)
    features_store, video_ids = open_features(features, split, may_be_empty=may_be_empty)
    model.check_store(features_store)
    video_ids = split_long(features_store, video_ids, model.windows)
    # Beside `out`, so that the relative references which the index keeps hold after the renaming.
    with atomic_folder(out) as temporary:
        index = ClipIndex.create(
            temporary,
            num_clips=model.engine.num_clips,
            width=model.engine.vector_width,
            fingerprint=model.engine.fingerprint,
            model_folder=model.folder,
            store_path=features_store.path,
            options=IndexOptions(**model.index.model_dump(), store=store),
        )
        try:
            _enter(
                index,
                model.engine,
                WindowedStore.of(features_store),
                video_ids,
                tags,
                on_progress=on_progress,
            )
        except BaseException:
            index.discard()
            raise
    return ClipIndex.open(out, store=store)


def add_videos(
    index: ClipIndex,
    model: Model,
    features: Path,
    *,
    split: str | None = None,
    tags: Sequence[str] = (),
    only: Collection[str] | None = None,
    replace: bool = False,
    titles: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Add the videos that the index does not hold yet. Returns: how many were added or replaced.

    Args:
        only: of the videos, those with these ids; None: all.
        replace: videos that the index holds, but whose features have changed, give way to the new ones.
        titles: by id; the others are called as their files.
    Raises:
        DataError, ModelError: as `build_index`; and the index was built with another model.
    """
    index.check_fingerprint(model.engine.fingerprint)
    plain, video_ids = open_features(features, split)
    model.check_store(plain)
    store = WindowedStore.of(plain)
    held, wanted, new, old = WindowedIds(index.video_ids), 0, [], []
    chosen = None if only is None else {same_name(video_id) for video_id in only}
    for video_id in video_ids:
        is_known = held.find(video_id) is not None
        if (chosen is not None and same_name(video_id) not in chosen) or (is_known and not replace):
            continue
        parts = split_long(plain, [video_id], model.windows)
        if is_known:
            before = held.expand([video_id])
            if before == parts and all(
                index.video(part).checksum == _checksum(store, part) for part in parts
            ):
                continue
            old += before
        new += parts
        wanted += 1
    if new:
        _enter(index, model.engine, store, new, tags, replaces=old, titles=titles, on_progress=on_progress)
    return wanted


def remove_videos(index: ClipIndex, video_ids: Sequence[str]) -> int:
    """Take videos out, long ones with all their windows. Returns: how many videos.

    Raises:
        DataError: an unknown id; then none is taken out.
    """
    index.remove(WindowedIds(index.video_ids).expand(video_ids))
    return len({same_name(video_id) for video_id in video_ids})


def open_features(
    features: Path, split: str | None, *, may_be_empty: bool = False
) -> tuple[FeatureStore, list[str]]:
    """The store behind a path that names a feature store or a data folder, and the ids to read from it.

    Raises:
        DataError: neither of the two; a split that the data folder does not have, or asked of a store; no video.
    """
    if (features / DATA_FILE).is_file():
        data = DataFolder.open(features)
        splits = data.splits if split is None else (split,)
        videos = [video for name in splits for video in data.videos(name)]
        return data.store, list(dict.fromkeys(video.video_id for video in videos))
    store = FeatureStore.open(features)
    if split is not None:
        raise DataError(
            "a feature store has no splits", where=features, mend="name a data folder, or leave out the split"
        )
    if not len(store) and not may_be_empty:
        raise DataError("the feature store holds no video", where=features, mend="import or extract features")
    return store, list(store.video_ids)


def _enter(
    index: ClipIndex,
    engine: Engine,
    store: WindowedStore,
    video_ids: Sequence[str],
    tags: Sequence[str],
    *,
    replaces: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
    on_progress: OnProgress | None,
) -> None:
    """Encode videos and add them, some thousands a commit, so that memory stays bounded."""
    for first in range(0, len(video_ids), COMMIT_VIDEOS):
        portion = video_ids[first : first + COMMIT_VIDEOS]
        vectors = np.empty((len(portion), engine.num_clips, engine.vector_width), dtype=np.float32)
        for start in range(0, len(portion), BATCH_VIDEOS):
            batch = portion[start : start + BATCH_VIDEOS]
            vectors[start : start + len(batch)] = engine.fused_clips(store, batch)
            if on_progress:
                on_progress(first + start + len(batch), len(video_ids))
        last = first + COMMIT_VIDEOS >= len(video_ids)
        present = [video_id for video_id in portion if video_id in index]
        index.add(
            portion,
            vectors,
            [store.duration_seconds(video_id) for video_id in portion],
            store.path,
            [_details(store, video_id, tags, (titles or {}).get(whole_id(video_id))) for video_id in portion],
            replaces=[v for v in replaces if v in index] if last else present,
        )


def _details(
    store: FeatureStore, video_id: str, tags: Sequence[str], title: str | None = None
) -> VideoDetails:
    """The catalogue's entry of a video; its date is that of the media file."""
    media = _media_file(store, video_id)
    return VideoDetails(
        title=title,
        media_path=media,
        tags=tuple(tags),
        date_unix=None if media is None else media.stat().st_mtime,
        checksum=_checksum(store, video_id),
    )


def _checksum(store: FeatureStore, video_id: str) -> str:
    """SHA-256 of a video's rows and duration."""
    rows = np.ascontiguousarray(store.rows(video_id))
    digest = hashlib.sha256(f"{rows.shape} {store.duration_seconds(video_id)!r} ".encode())
    digest.update(rows.data)
    return digest.hexdigest()


def _media_file(store: FeatureStore, video_id: str) -> Path | None:
    """The file that a video's rows came from, if it is there; a relative name is looked for beside the store.

    The demo and older stores keep only the file's name, and `videos/` lies beside the data folder.
    """
    source = store.source(video_id)
    if not source:
        return None
    near = store.path.absolute().parents
    folders = [store.path.absolute(), *near[:2], *(folder / "videos" for folder in near[:2])]
    places = [Path(source)] if Path(source).is_absolute() else [folder / source for folder in folders]
    return next((place for place in places if place.is_file()), None)
