"""Video files → feature store, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dciml.features.joined import VideoEncoder, encode_video
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.processes import map_in_processes

COMMIT_EVERY = 16  # videos; a kill loses at most so many


def extract_videos(
    paths: Mapping[str, Path],
    encoder: VideoEncoder,
    store_path: Path,
    workers: int = 2,
    on_video: Callable[[str], None] | None = None,
) -> None:
    """Encode video files into a store, in the order of `paths`; what the store already holds is left alone.

    Args:
        paths: a file for each video id.
        encoder: must pickle; every process gets a copy.
        store_path: a new store, or one of the same encoder.
        workers: processes; 1 works in this one.
        on_video: called with each id once its rows are written.
    Raises:
        DataError: a file cannot be decoded (all before it stay in the store), or the store is of another encoder.
    """
    manifest = StoreManifest(encoder.name, encoder.width, encoder.rows_per_second)
    with FeatureStoreWriter(store_path, manifest, commit_every=COMMIT_EVERY) as writer:
        stored = FeatureStore.open(store_path)
        missing = [video_id for video_id in paths if video_id not in stored]
        files = [paths[video_id] for video_id in missing]
        encoded = map_in_processes(partial(encode_video, encoder=encoder), files, workers)
        for video_id, file, video in zip(missing, files, encoded, strict=True):
            writer.append(video_id, video.rows, video.duration_seconds, source=file.name)
            if on_video is not None:
                on_video(video_id)
