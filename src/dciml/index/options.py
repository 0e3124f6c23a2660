"""How an index keeps and searches its vectors; chosen when it is made, kept in its catalogue."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class IndexOptions:
    """See the settings of the same names in `dciml.config.IndexConfig`.

    Attributes:
        dtype: of the vectors on disk.
        exact_videos: up to so many videos every search is exact; beyond, codes find the candidates.
        code_bytes: of the code of a vector: 4 bits for each pair of its first 4 · code_bytes principal axes, rotated.
        candidate_vectors: vectors that the codes hand on for each video asked for, in up to 20,000 videos.
        store: `milvus:URI` for vectors in a Milvus database; None: in the index folder.
        collection: of that database, given by `ClipIndex.create`.
    """

    dtype: Literal["float32", "float16"] = "float32"
    exact_videos: int = 10_000
    code_bytes: int = 48
    candidate_vectors: int = 40
    store: str | None = None
    collection: str | None = None

    def to_json(self) -> str:
        """As kept in the catalogue."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> IndexOptions:
        """Read what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))
