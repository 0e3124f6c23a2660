"""A picture that stands for long is looked at once, and its rows are those that they would be otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dciml.features.encoders.transformers_vision import ClipRows, ClipTiming, ImageRows
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.media import VideoInfo

INFO = VideoInfo(150.0, 64, 48, 25.0, Path("v.mp4"))


def pictures(rng: np.random.Generator, stands: bool) -> list[np.ndarray]:
    """600 pictures: some that move, one for two minutes, and some again; equal objects, or equal copies."""
    moving = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    still = moving[30]
    whole = [*moving[:31], *[still] * 539, *moving[30:]]
    return whole if stands else [picture.copy() for picture in whole]


def test_the_built_in_encoder_gives_the_same_rows() -> None:
    found = []
    for stands in (True, False):
        rows = BuiltinVisualEncoder().begin(INFO)
        for index, picture in enumerate(pictures(np.random.default_rng(0), stands)):
            rows.add(index / 4, picture)
        found.append(rows.finish())
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_model_of_pictures_sees_it_once() -> None:
    seen = 0

    def encode(some: Sequence[np.ndarray]) -> np.ndarray:
        nonlocal seen
        seen += len(some)
        return np.stack([[picture.mean(), picture.std(), 1.0] for picture in some]).astype(np.float32)

    found, counts = [], []
    for stands in (True, False):
        seen = 0
        rows = ImageRows(encode, (300, 3), 2.0, 8)
        for index, picture in enumerate(pictures(np.random.default_rng(0), stands)):
            rows.add(index / 4, picture)
        found.append(rows.finish())
        counts.append(seen)
    assert counts == [60, 600]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_a_model_of_clips_sees_it_once() -> None:
    torch = pytest.importorskip("torch")
    seen = {"pictures": 0, "clips": 0}

    def prepare(picture: np.ndarray) -> Any:
        seen["pictures"] += 1
        return torch.from_numpy(picture).float()

    def encode_clips(clips: Any) -> np.ndarray:
        seen["clips"] += len(clips)
        means = clips.mean(dim=(2, 3))  # (n, frames, 3)
        return means.flatten(1).numpy().astype(np.float32)

    encoder: Any = SimpleNamespace(
        timing=ClipTiming(2.0, 1.0, 8),
        rows_per_second=2.0,
        batch_clips=4,
        prepare=prepare,
        encode_clips=encode_clips,
    )
    found, counts = [], []
    for stands in (True, False):
        seen.update(pictures=0, clips=0)
        rows = ClipRows(encoder, 150.0)
        for index, picture in enumerate(pictures(np.random.default_rng(0), stands)):
            rows.add(index / 4, picture)
        found.append(rows.finish())
        counts.append((seen["pictures"], seen["clips"]))
    assert counts[1] == (600, 150)
    assert counts[0][0] == 60
    assert counts[0][1] < 25
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
