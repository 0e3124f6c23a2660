"""Extraction shared out by Ray Data: to the machines of a cluster, or to processes of this one (extra `ray`).

Each Ray worker runs the same code for one video as `dciml extract` does without Ray, in a process of its own, so that a
crash in a codec stays with its file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dciml.errors import DataError
from dciml.features.base import EncodedVideo
from dciml.features.extract import STALL_SECONDS, Extracted, VideoFile
from dciml.features.store_format import FileStamp
from dciml.processes import Beat, Crew, Outcome, share_of_memory


class RayRunner:
    """A `Runner` for `extract_videos`.

    Args:
        extract: for one file, as `extract_video` with its encoder given.
        workers: how many videos are worked on at a time.
    Raises:
        DataError: Ray is not installed.
    """

    def __init__(self, extract: Callable[[VideoFile, Beat], Extracted], workers: int) -> None:
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise DataError("Ray is not installed", mend="pip install 'dciml[ray]'") from error
        self._extract, self._workers = extract, workers

    def __call__(
        self, files: Iterable[VideoFile], on_beat: Callable[[VideoFile, float, int], None]
    ) -> Iterator[Outcome[VideoFile, Extracted]]:
        """Yield outcomes as they come, whole videos only: beats do not cross machines."""
        del on_beat
        import ray.data

        waiting = {file.video_id: file for file in files}
        if not waiting:
            return
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        with _ray_running(self._workers):
            # A block a video: what is done comes back at once.
            jobs = ray.data.from_items(
                [_to_row(file) for file in waiting.values()], override_num_blocks=len(waiting)
            )
            worker: Any = _RayWorker  # Ray makes one in each actor
            done = jobs.map(
                worker, fn_constructor_args=(self._extract, self._workers), concurrency=self._workers
            )
            for row in done.iter_rows():
                yield _to_outcome(row, waiting.pop(row["video_id"]))


class _RayWorker:
    """What lives in a Ray actor: a crew of one."""

    def __init__(self, extract: Callable[[VideoFile, Beat], Extracted], workers: int) -> None:
        self._crew = Crew(extract, 1, STALL_SECONDS, share_of_memory(workers))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One video: a row of plain columns in, one out."""
        outcome = next(self._crew.run([_to_file(row)]))
        error, extracted = outcome.error, outcome.result
        stamp = extracted.stamp if extracted else None
        video = extracted.video if extracted else None
        return {
            "video_id": row["video_id"],
            "num_bytes": stamp.num_bytes if stamp else -1,
            "mtime_ns": stamp.mtime_ns if stamp else -1,
            "sha256": stamp.sha256 if stamp else "",
            "rows": np.ascontiguousarray(video.rows, np.float32).tobytes() if video else b"",
            "num_rows": len(video.rows) if video else 0,
            "duration_seconds": float(video.duration_seconds) if video else 0.0,
            "error": error.what if error else "",
            "where": str(error.where or "") if error else "",
            "mend": (error.mend or "") if error else "",
        }


def _to_row(file: VideoFile) -> dict[str, Any]:
    return {
        "video_id": file.video_id,
        "path": os.path.abspath(file.path),
        "size": file.num_bytes,
        "known_sha256": file.stamp.sha256 if file.stamp else "",
    }


def _to_file(row: dict[str, Any]) -> VideoFile:
    stamp = FileStamp(0, 0, row["known_sha256"]) if row["known_sha256"] else None
    return VideoFile(row["video_id"], Path(row["path"]), row["size"], stamp)


def _to_outcome(row: dict[str, Any], file: VideoFile) -> Outcome[VideoFile, Extracted]:
    if row["error"]:
        error = DataError(row["error"], where=row["where"] or None, mend=row["mend"] or None)
        return Outcome(file, None, error)
    video = None
    if row["num_rows"]:
        rows = np.frombuffer(row["rows"], np.float32).reshape(row["num_rows"], -1)
        video = EncodedVideo(rows, row["duration_seconds"])
    stamp = FileStamp(row["num_bytes"], row["mtime_ns"], row["sha256"])
    return Outcome(file, Extracted(stamp, video), None)


@contextmanager
def _ray_running(workers: int) -> Iterator[None]:
    """Use the Ray that runs or that RAY_ADDRESS names; else start one here, and end it afterwards."""
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()
