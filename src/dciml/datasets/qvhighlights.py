"""QVHighlights as released, one JSON object a line; a sentence has one window or several.

    {"qid": 2579, "query": "…", "duration": 150, "vid": "NUsG9BgSes0_210.0_360.0", "relevant_windows": [[82, 150]], …}

Saliency scores are not used. The released test file has no windows; a later one has.
"""

from __future__ import annotations

from pathlib import Path

from dciml.datasets.lines import LineReader
from dciml.datasets.moments import BadMoments, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where


def read_qvhighlights(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one QVHighlights file; each window is a true moment. A query's id is `qvhighlights_<qid>`.

    Raises:
        DataError: a line is not as above; the message names line and field.
    """
    reader = LineReader(Path(path), past_end, bad_moments)
    for line in reader.lines(("qid", "query", "duration", "vid")):
        windows = line.row.get("relevant_windows", [])
        if not isinstance(windows, list):
            place = Where(reader.path, line.number, "relevant_windows")
            raise DataError("this must be a list of windows", where=place, mend="write [[start, end], …]")
        reader.add(line, f"qvhighlights_{line.row['qid']}", ("vid", "query"), windows, "relevant_windows")
    return reader.result()
