"""Forty real clips, where they lie beside the repository: every one decodes, and both encoders give rows of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from dciml.features.base import num_rows
from dciml.features.encoders.joined import JoinedEncoder
from dciml.features.encoders.specs import create_video_encoder
from dciml.features.extract import extract_videos
from dciml.features.store import FeatureStore

CLIPS = Path(__file__).parents[3] / "shared" / "data" / "clips"


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips (shared/data/clips) are not here")
def test_every_real_clip_is_extracted(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    lines = (CLIPS / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    paths = {row["video"]: CLIPS / row["video"] for row in map(json.loads, lines)}
    assert len(paths) == len(list(CLIPS.glob("*.mp4"))) == 40
    encoder = JoinedEncoder(
        [create_video_encoder(spec) for spec in ("builtin", f"image:{tiny_model('clip')}")]
    )
    extract_videos(paths, encoder, tmp_path / "store", workers=1)
    store = FeatureStore.open(tmp_path / "store")
    assert (len(store), store.manifest.width, store.verify()) == (40, 581 + 10, [])
    assert "image:tiny-clip@" in store.manifest.encoder
    for video_id, path in paths.items():
        rows, seconds = store.rows(video_id).astype(np.float32), store.duration_seconds(video_id)
        with av.open(str(path)) as container:
            frames = sum(1 for _ in container.decode(video=0))
        assert abs(frames / 3 - seconds) < 0.5  # these files have 3 frames a second
        assert len(rows) == num_rows(seconds, 2.0) > 1
        np.testing.assert_allclose(np.linalg.norm(rows[:, 581:], axis=1), 1, atol=2e-3)
        assert np.ptp(rows, axis=0).max() > 0.01  # the rows follow the pictures
