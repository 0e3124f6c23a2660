"""TACoS as used for grounding, in the form of 2D-TAN: times are frame numbers.

{video: {"timestamps": [[first frame, last frame], …], "sentences": […], "fps": 29.4, "num_frames": 12438}}
"""

from __future__ import annotations

from pathlib import Path

from dciml.datasets.by_video import read_by_video
from dciml.datasets.fields import Row, positive_field
from dciml.datasets.moments import BadMoments, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import Where


def read_tacos(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one TACoS file; frames become seconds. A query's id is `tacos_<split>_<video>_<number, from 0>`.

    Raises:
        DataError: not JSON, or a video's entry is not as above; the message names video and field.
    """
    return read_by_video(Path(path), f"tacos_{split}", _clock, past_end, bad_moments)


def _clock(entry: Row, where: Where) -> tuple[float, float]:
    frame_seconds = 1 / positive_field(entry, "fps", where)
    return positive_field(entry, "num_frames", where) * frame_seconds, frame_seconds
