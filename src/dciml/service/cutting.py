"""Cuts moments out of videos in a process of its own, so that a file that breaks a decoder breaks that."""

from __future__ import annotations

import os
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dciml.processes import GIBIBYTE, Beat, OnCall
from dciml.video_cut import cut_video

CUTTING_SECONDS = 120.0
"""A piece that takes longer is given up."""
MEMORY_BYTES = 2 * GIBIBYTE
"""Cutting that needs more is given up."""
CLIP_BYTES = GIBIBYTE
"""A piece that grows larger is given up."""


@dataclass(frozen=True)
class CutOrder:
    """What to cut: `media` from `start_seconds` to `end_seconds` into the new file `out`; `exact` as `cut_video`."""

    media: Path
    out: Path
    start_seconds: float
    end_seconds: float
    exact: bool


class ClipCutter:
    """Makes pieces of videos, each in a file that has no name any more: it is gone once it is closed.

    Thread-safe.

    Args:
        workers: processes that cut; a call waits until one is free.
    """

    def __init__(self, workers: int = 1) -> None:
        self._cutters = OnCall(_cut, workers, CUTTING_SECONDS, MEMORY_BYTES)

    def close(self) -> None:
        """End the processes; nothing may be cut any more."""
        self._cutters.close()

    def cut(
        self, media: Path, start_seconds: float, end_seconds: float, *, exact: bool = False
    ) -> tuple[int, os.stat_result]:
        """A descriptor of the piece, an MP4 file, for the caller to close; and what it points to.

        Raises:
            DataError: the file cannot be read there, or takes too much time or memory.
            OSError: the temporary folder refused the piece.
        """
        with tempfile.TemporaryDirectory(prefix="dciml-clip-") as folder:
            out = Path(folder) / "clip.mp4"
            refused = self._cutters.call(CutOrder(media, out, start_seconds, end_seconds, exact))
            if refused is not None:
                raise OSError(refused, os.strerror(refused))
            descriptor = os.open(out, os.O_RDONLY | os.O_CLOEXEC)
        return descriptor, os.fstat(descriptor)


def _cut(order: CutOrder, beat: Beat) -> int | None:
    """Carry out an order; returns the number of the error with which the system refused it, if it did."""
    del beat
    os.setpriority(os.PRIO_PROCESS, 0, 10)  # people who search come first
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = CLIP_BYTES if hard == resource.RLIM_INFINITY else min(CLIP_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        cut_video(order.media, order.out, order.start_seconds, order.end_seconds, exact=order.exact)
    except OSError as error:
        return error.errno or 5  # EIO
    return None
