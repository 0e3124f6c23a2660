"""`dciml teach` as a user types it, of a home with an image–text model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dciml.features import FeatureStore, FeatureStoreWriter
from dciml.index import ClipIndex
from dciml.media import write_video
from dciml.model_folder import load_model, open_searcher
from dciml.recipes.home import TEXT_BESIDE, open_home
from dciml.recipes.index import add_videos
from dciml.recipes.teach import NEEDED_VIDEOS
from dciml.recipes.told import tell


@pytest.mark.slow
def test_a_home_of_an_image_text_model_is_taught(tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "0.mp4", [np.full((32, 48, 3), 90, dtype=np.uint8)] * 8, 4)
    encoders = (f"image:{tiny_model('clip')}", TEXT_BESIDE)
    home = open_home(tmp_path / "films.dciml", [tmp_path / "films"], encoders)
    manifest, rng = FeatureStore.open(home.store).manifest, np.random.default_rng(2)
    with FeatureStoreWriter(home.store, manifest) as writer:
        for number in range(NEEDED_VIDEOS):
            writer.append(f"films/{number}", rng.normal(size=(6, manifest.width)), 6.0)
    add_videos(ClipIndex.open(home.index), load_model(home.model), home.store)
    for number in range(NEEDED_VIDEOS):
        tell(home.path, f"films/{number}", 1.0, 3.0, f"a dog runs {number}", 6.0)
    command = [sys.executable, "-m", "dciml", "teach", str(home.path), "--quiet", "--json"]
    result = subprocess.run(
        [*command, "--set", "training.epochs=2"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["trained_on"] == [16, 16]
    assert report["held_out"] == [8, 8]
    assert report["is_better"] == (home.taught is not None) == (report["folder"] is not None)
    assert len(open_searcher(home.present_index).search("a dog", 5)) == 5
