"""A store of captions has rows, and whole videos, that are zero: training, evaluation and search take them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dciml.config import RunConfig
from dciml.datasets.folder import DataFolder
from dciml.features.store_format import INDEX_FILE, ROW_DTYPE, ROWS_FILE
from dciml.folders import WEIGHTS_FILE
from dciml.model_folder import load_model, open_searcher
from dciml.recipes.index import build_index
from dciml.recipes.train import train
from dciml.training.checkpoint import load_tensors


@pytest.mark.slow
def test_rows_and_videos_of_zeros_do_no_harm(
    tiny_data: Path, tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    store = DataFolder.open(tiny_data).store
    silent = {"train0", "train5", "test24"}
    content = np.concatenate(
        [store.rows(video_id) * (video_id not in silent) for video_id in store.video_ids]
    )
    content[::2] = 0
    content = content.astype(ROW_DTYPE)
    content.tofile(tiny_data / "features" / ROWS_FILE)
    index = tiny_data / "features" / INDEX_FILE
    entries = [store.entry(video_id) for video_id in store.video_ids]
    index.write_text(
        "".join(
            replace(e, crc32=zlib.crc32(content[e.offset : e.offset + e.rows].data)).to_line()
            for e in entries
        )
    )

    model = train(tiny_config(), tmp_path / "model", quiet=True)
    tensors, _ = load_tensors(model / WEIGHTS_FILE)
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    store = DataFolder.open(tiny_data).store
    loaded = load_model(model)
    assert np.isfinite(loaded.engine.fused_clips(store, ["test24", "test25"])).all()
    build_index(loaded, tiny_data / "features", tmp_path / "index")
    hits = open_searcher(tmp_path / "index").search("red dog runs", k=50)
    assert len(hits) > 10
    assert all(np.isfinite(hit.score) and hit.end_seconds > hit.start_seconds for hit in hits)
