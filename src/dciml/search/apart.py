"""What spoke for a moment where pictures and the text beside a video are searched together: each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError
from dciml.features import (
    JOINT,
    Caption,
    JointTextEncoder,
    TextEncoder,
    WordEncoder,
    find_captions,
    read_captions,
    sentence_vector,
    tokenize,
)
from dciml.method import CosineSpace
from dciml.search.engines import BaselineEngine, Engine

Vectors = NDArray[np.float32]
Kind = Literal["picture", "text"]
LEAST_COSINE = 0.2
"""Of the letters of a line with those of a sentence that have nothing to do with each other: rarely more."""


@dataclass(frozen=True)
class EvidencePart:
    """What one kind of evidence says of a moment: the cosine of its best clip with the sentence, −1 … 1."""

    kind: Kind
    cosine: float


@dataclass(frozen=True)
class Block:
    """The vectors of one encoder among those that stand side by side."""

    kind: Kind
    columns: slice
    weight: float
    text_encoder: TextEncoder


class BlocksApart:
    """The parts of an untrained space of several encoders.

    Args:
        blocks: in the order of the vectors.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = tuple(blocks)

    @classmethod
    def of(cls, engine: Engine) -> BlocksApart | None:
        """None for an engine whose evidence is of one kind, or has become one by training."""
        if not isinstance(engine, BaselineEngine) or not isinstance(engine.space, CosineSpace):
            return None
        names, encoder = engine.store_encoder.split(JOINT), engine.text_encoder
        if not isinstance(encoder, JointTextEncoder) or not (
            len(names) == len(engine.space.blocks) == len(encoder.parts) > 1
        ):
            return None
        start, blocks = 0, []
        for name, (width, weight), part in zip(names, engine.space.blocks, encoder.parts, strict=True):
            kind: Kind = "text" if name.startswith("text:") else "picture"
            blocks.append(Block(kind, slice(start, start + width), weight, part))
            start += width
        return cls(blocks)

    def parts(self, query: Vectors, clips: Vectors) -> tuple[EvidencePart, ...]:
        """What each kind says of the clips of a moment; none of a kind that knows nothing of any sentence.

        Args:
            query: (D,). clips: (S, D), fused; at least one.
        """
        told = []
        for block in self._blocks:
            asked = query[block.columns]
            if block.weight > 0 and asked.any():
                cosines = clips[:, block.columns] @ asked / block.weight
                told.append(EvidencePart(block.kind, float(cosines.max())))
        return tuple(told)

    @property
    def reads_text(self) -> bool:
        """Whether the text beside a video is among the evidence."""
        return any(block.kind == "text" for block in self._blocks)

    def line(self, sentence: str, video: Path, start_seconds: float, end_seconds: float) -> str | None:
        """The caption in a moment that has most to do with a sentence; None where none has anything."""
        encoders = [block.text_encoder for block in self._blocks if block.kind == "text"]
        said = [
            caption.text
            for caption in (captions_beside(video) if encoders else ())
            if caption.start_seconds < end_seconds and caption.end_seconds > start_seconds
        ]
        scored = list(_scored(sentence, said, encoders[0])) if said else []
        best = max(scored, default=(0.0, ""))
        return best[1] if best[0] > 0 else None


def _scored(sentence: str, lines: Sequence[str], encoder: TextEncoder) -> Iterator[tuple[float, str]]:
    """How much each line has to do with a sentence, 0: nothing; by letters where these are what was searched by."""
    words = set(tokenize(sentence))
    spoken = [line for line in dict.fromkeys(lines) if tokenize(line)]
    if not spoken:
        return
    if not isinstance(encoder, WordEncoder):  # too slow to do again for each line
        yield from ((float(len(words & set(tokenize(line)))), line) for line in spoken)
        return
    asked, *rows = (sentence_vector(encoded) for encoded in encoder.encode([sentence, *spoken]))
    for line, row in zip(spoken, rows, strict=True):
        cosine = float(asked @ row)
        yield (cosine if cosine >= LEAST_COSINE else 0.0), line


def captions_beside(video: Path) -> tuple[Caption, ...]:
    """All captions beside a video, in the order of time; none where they cannot be read, or lie elsewhere by a link."""
    try:
        file = find_captions(video)
        if file is None or not file.resolve().is_relative_to(video.parent.resolve()):
            return ()
        return _read(file, file.stat().st_mtime_ns)
    except (DataError, OSError):
        return ()


@lru_cache(maxsize=64)
def _read(file: Path, changed_ns: int) -> tuple[Caption, ...]:
    """The captions of a file as it was at a time."""
    del changed_ns
    return tuple(read_captions(file))
