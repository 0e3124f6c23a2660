"""Extraction of several files into a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.extract import extract_videos
from dciml.features.store import FeatureStore
from dciml.features.visual import BuiltinVisualEncoder
from dciml.media import write_video


def write_three(folder: Path) -> dict[str, Path]:
    paths = {f"v{k}": folder / f"{k}.mp4" for k in range(3)}
    for k, path in enumerate(paths.values()):
        pictures = np.random.default_rng(k).integers(0, 256, (10 + 3 * k, 48, 64, 3), dtype=np.uint8)
        write_video(path, pictures, 8)
    return paths


def test_extraction_gives_the_same_store_in_any_number_of_processes(tmp_path: Path) -> None:
    paths = write_three(tmp_path)
    seen: list[str] = []
    extract_videos(paths, BuiltinVisualEncoder(), tmp_path / "one", workers=1, on_video=seen.append)
    extract_videos(paths, BuiltinVisualEncoder(), tmp_path / "two", workers=2)
    one, two = FeatureStore.open(tmp_path / "one"), FeatureStore.open(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert list(one.video_ids) == list(paths) == seen
    assert one.manifest.encoder == "builtin-visual-1"


def test_extraction_goes_on_where_it_stopped(tmp_path: Path) -> None:
    paths = write_three(tmp_path)
    broken = paths | {"v1": tmp_path / "missing.mp4"}
    with pytest.raises(
        DataError, match=r"^[^ ]*missing\.mp4: there is no such file\. To mend it: check the path\.$"
    ):
        extract_videos(broken, BuiltinVisualEncoder(), tmp_path / "store", workers=2)
    assert FeatureStore.open(tmp_path / "store").video_ids == ("v0",)
    seen: list[str] = []
    extract_videos(paths, BuiltinVisualEncoder(), tmp_path / "store", workers=1, on_video=seen.append)
    assert seen == ["v1", "v2"]
