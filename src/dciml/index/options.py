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

    def __post_init__(self) -> None:
        numbers = {
            "exact_videos": (self.exact_videos, 0, 1 << 40),
            "code_bytes": (self.code_bytes, 1, 1 << 14),
            "candidate_vectors": (self.candidate_vectors, 1, 1 << 20),
        }
        for name, (value, least, most) in numbers.items():
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"dtype must be float32 or float16, not {self.dtype!r}")
        if not all(value is None or isinstance(value, str) for value in (self.store, self.collection)):
            raise ValueError("store and collection must be text")

    def to_json(self) -> str:
        """As kept in the catalogue."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> IndexOptions:
        """Read what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))
