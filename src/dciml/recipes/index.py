"""Build an index of the videos of a feature store, add videos to it, and take videos out."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dciml.datasets.folder import DATA_FILE, DataFolder
from dciml.errors import DataError
from dciml.features.long_videos import WindowedStore, split_long
from dciml.features.store import FeatureStore
from dciml.index import ClipIndex, VideoDetails
from dciml.search.engine import Engine
from dciml.search.long_videos import WindowedIds

if TYPE_CHECKING:
    from dciml.build import Model

BATCH_VIDEOS = 64

Progress = Callable[[int, int], None]
"""Is told how many videos are done, and of how many."""


def build_index(
    model: Model,
    features: Path,
    out: Path,
    *,
    split: str | None = None,
    tags: Sequence[str] = (),
    batch_videos: int = BATCH_VIDEOS,
    on_progress: Progress | None = None,
) -> ClipIndex:
    """Make an index folder; it appears whole or not at all. Long videos go in as windows (`model.windows`).

    Args:
        features: a feature store, or a data folder.
        out: a folder that does not exist yet, or is empty.
        split: of a data folder, the split whose videos are indexed; None: all videos.
        tags: for all these videos.
        batch_videos: how many videos the model encodes at a time.
    Raises:
        DataError: `out` is taken, or the features cannot be read.
        ModelError: the model was trained on features of another encoder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            "there is something here already", where=out, mend="name a new folder, or remove this one first"
        )
    store, video_ids = open_features(features, split)
    model.check_store(store)
    store, video_ids = WindowedStore.of(store), split_long(store, video_ids, model.windows)
    vectors = _encode(model.engine, store, video_ids, batch_videos, on_progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, so that the relative references which the index keeps hold after the renaming.
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        index = ClipIndex.create(
            temporary,
            num_clips=model.engine.num_clips,
            width=model.engine.vector_width,
            fingerprint=model.engine.fingerprint,
            model_folder=model.folder,
            store_path=store.path,
        )
        told = [_details(store, video_id, tags) for video_id in video_ids]
        index.add(video_ids, vectors, _durations(store, video_ids), details=told)
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ClipIndex.open(out)


def add_videos(
    index: ClipIndex,
    model: Model,
    features: Path,
    *,
    split: str | None = None,
    tags: Sequence[str] = (),
    only: Collection[str] | None = None,
    on_progress: Progress | None = None,
) -> int:
    """Add the videos that the index does not hold yet, or of these those in `only`. Returns: how many those were.

    Raises:
        DataError, ModelError: as `build_index`; and the index was built with another model.
    """
    index.check_fingerprint(model.engine.fingerprint)
    store, video_ids = open_features(features, split)
    model.check_store(store)
    known = set(WindowedIds(index.video_ids).whole_videos)
    missing = [v for v in video_ids if v not in known and (only is None or v in only)]
    if missing:
        store, new = WindowedStore.of(store), split_long(store, missing, model.windows)
        vectors = _encode(model.engine, store, new, BATCH_VIDEOS, on_progress)
        told = [_details(store, video_id, tags) for video_id in new]
        index.add(new, vectors, _durations(store, new), store.path, told)
    return len(missing)


def remove_videos(index: ClipIndex, video_ids: Sequence[str]) -> int:
    """Take videos out, long ones with all their windows. Returns: how many videos.

    Raises:
        DataError: an unknown id; then none is taken out.
    """
    index.remove(WindowedIds(index.video_ids).expand(video_ids))
    return len(set(video_ids))


def open_features(features: Path, split: str | None) -> tuple[FeatureStore, list[str]]:
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
    if not len(store):
        raise DataError("the feature store holds no video", where=features, mend="import or extract features")
    return store, list(store.video_ids)


def _encode(
    engine: Engine,
    store: FeatureStore,
    video_ids: Sequence[str],
    batch_videos: int,
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    vectors = np.empty((len(video_ids), engine.num_clips, engine.vector_width), dtype=np.float32)
    for start in range(0, len(video_ids), batch_videos):
        batch = video_ids[start : start + batch_videos]
        vectors[start : start + len(batch)] = engine.fused_clips(store, batch)
        if on_progress:
            on_progress(start + len(batch), len(video_ids))
    return vectors


def _durations(store: FeatureStore, video_ids: Sequence[str]) -> list[float]:
    return [store.duration_seconds(video_id) for video_id in video_ids]


def _details(store: FeatureStore, video_id: str, tags: Sequence[str]) -> VideoDetails:
    """The checksum is of the rows and the duration; the date is that of the media file."""
    media = _media_file(store, video_id)
    rows = np.ascontiguousarray(store.rows(video_id))
    digest = hashlib.sha256(f"{rows.shape} {store.duration_seconds(video_id)!r} ".encode())
    digest.update(rows.data)
    return VideoDetails(
        media_path=media,
        tags=tuple(tags),
        date_unix=None if media is None else media.stat().st_mtime,
        checksum=digest.hexdigest(),
    )


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
