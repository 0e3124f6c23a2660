"""TVR as released, one JSON object a line.

    {"vid_name": "friends_s01e03_seg02_clip_19", "duration": 61.46, "ts": [16.48, 33.87], "desc": "…", "desc_id": 90200}

The public test file has no `ts`. Subtitles and `type` are not used.
"""

from __future__ import annotations

from pathlib import Path

from dciml.datasets.lines import LineReader
from dciml.datasets.moments import BadMoments, PastEnd
from dciml.datasets.records import QueryFile


def read_tvr(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one TVR file. A query's id is its `desc_id`, as TVR's own scorer wants it; `split` is not used.

    Raises:
        DataError: a line is not as above; the message names line and field.
    """
    reader = LineReader(Path(path), past_end, bad_moments)
    for line in reader.lines(("vid_name", "duration", "desc", "desc_id")):
        spans = [line.row["ts"]] if line.row.get("ts") is not None else []
        reader.add(line, str(line.row["desc_id"]), ("vid_name", "desc"), spans, "ts")
    return reader.result()
