"""ActivityNet Captions as released.

{video: {"duration": seconds, "timestamps": [[start, end], …], "sentences": […]}}
"""

from __future__ import annotations

from pathlib import Path

from dciml.datasets.by_video import read_by_video
from dciml.datasets.fields import Row, positive_field
from dciml.datasets.moments import BadMoments, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import Where


def read_activitynet(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one ActivityNet Captions file. A query's id is `activitynet_<split>_<video>_<number, from 0>`.

    Args:
        split: goes into the query ids, since two files may annotate the same videos.
        past_end, bad_moments: as for `read_queries`; the released training file holds four moments that
            do not end after their start, so the default keeps those sentences without a moment.
    Raises:
        DataError: not JSON, or a video's entry is not as above; the message names video and field.
    """
    return read_by_video(Path(path), f"activitynet_{split}", _clock, past_end, bad_moments)


def _clock(entry: Row, where: Where) -> tuple[float, float]:
    return positive_field(entry, "duration", where), 1.0
