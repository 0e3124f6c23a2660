"""The submission file that the scorer of TVR reads, so that others' scorers can check ours.

One JSON object: `video2idx` gives each video of the corpus a number; `VR`, `SVMR` and `VCMR` list, per query,
`{"desc_id", "desc", "predictions": [[video number, start, end, score], …]}`, best first (VR: both times 0).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.files import atomic_path
from dciml.folders import refuse_foreign_file
from dciml.types import Query, SearchHit

BEGINNING = '{"video2idx": '
TASKS = ("VR", "SVMR", "VCMR")
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Submission:
    """Predictions of all tasks, (n, 4) per query id: video number, start, end, score; best first."""

    video_numbers: Mapping[str, int]
    predictions: Mapping[str, dict[str, Rows]] = field(default_factory=lambda: {task: {} for task in TASKS})

    @classmethod
    def of_corpus(cls, video_ids: Iterable[str]) -> Submission:
        """An empty submission; videos are numbered in the order of their ids."""
        return cls({video_id: number for number, video_id in enumerate(sorted(video_ids))})

    def add_videos(self, query_id: str, video_ids: Sequence[str], scores: Sequence[float]) -> None:
        """VR: videos of the corpus, best first."""
        rows = [
            (self.video_numbers[name], 0.0, 0.0, score) for name, score in zip(video_ids, scores, strict=True)
        ]
        self.predictions["VR"][query_id] = np.array(rows, dtype=np.float64).reshape(-1, 4)

    def add_hits(self, task: str, query_id: str, hits: Sequence[SearchHit]) -> None:
        """SVMR or VCMR: hits, best first."""
        rows = [
            (self.video_numbers[hit.video_id], hit.start_seconds, hit.end_seconds, hit.score) for hit in hits
        ]
        self.predictions[task][query_id] = np.array(rows, dtype=np.float64).reshape(-1, 4)

    def write(self, path: Path, queries: Sequence[Query]) -> None:
        """Write the file, atomically and query by query, so that it is never in memory as a whole."""
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(BEGINNING + json.dumps(dict(self.video_numbers), ensure_ascii=False))
            for task in TASKS:
                file.write(f',\n"{task}": [')
                for number, entry in enumerate(_entries(self.predictions[task], queries)):
                    file.write(
                        (",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False, allow_nan=False)
                    )
                file.write("\n]")
            file.write("}\n")


def refuse_other(path: Path) -> None:
    """Refuse to write a submission over anything but a submission. Raises DataError."""

    def is_submission(file: Path) -> bool:
        with file.open("rb") as opened:
            return opened.read(len(BEGINNING)) == BEGINNING.encode()

    refuse_foreign_file(path, "a submission", is_submission)


def _entries(predictions: Mapping[str, Rows], queries: Sequence[Query]) -> Iterable[dict[str, object]]:
    for query in queries:
        if query.query_id in predictions:
            rows = [[int(row[0]), *row[1:].tolist()] for row in predictions[query.query_id]]
            yield {"desc_id": query.query_id, "desc": query.sentence, "predictions": rows}
