"""Runs that can teach little say so at their start."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from dciml.config import RunConfig
from dciml.datasets.folder import write_data_folder
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.recipes.train import _set_up, make_fabric, train
from dciml.recipes.trained_on import training_cautions
from dciml.training.progress import Reporter
from dciml.types import Query, Video

MakeConfig = Callable[..., RunConfig]


def data_of(folder: Path, rows: Mapping[str, int], sentences: int = 2, length: int = 3) -> Path:
    """Videos with random rows by their numbers."""

    def fill(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("net", 4, 1.0)) as writer:
            for name, number in rows.items():
                values = np.random.default_rng(number).standard_normal((length, 4))
                writer.append(name, values.astype(np.float16), float(length))

    queries = [
        Query(f"{name}-{i}", name, f"dog {name} runs {i}", ()) for name in rows for i in range(sentences)
    ]
    write_data_folder(folder, "d", {"train": queries}, [Video(n, float(length), "train") for n in rows], fill)
    return folder


def cautions(config: RunConfig, tmp_path: Path, processes: int = 1) -> list[str]:
    reporter = Reporter(tmp_path / "out", enabled=False, quiet=True)
    run = _set_up(config, tmp_path / "out", make_fabric(config), reporter)
    return training_cautions(config, run.training, run.held_out, processes)


@pytest.mark.parametrize(
    ("videos", "batch", "processes", "said"),
    [
        (2, 8, 1, "one single video is trained on"),
        (5, 1, 1, "4 of the 4 batches of an epoch hold one video alone"),
        (5, 3, 1, "1 of the 2 batches of an epoch holds one video alone"),
        (5, 2, 1, ""),
        (5, 1, 2, ""),  # negatives come from the other process
    ],
)
def test_batches_without_a_negative_are_told(
    tiny_config: MakeConfig, tmp_path: Path, videos: int, batch: int, processes: int, said: str
) -> None:
    data = data_of(tmp_path / "d", {f"v{i}": i for i in range(videos)})
    config = tiny_config(
        data={"folder": str(data), "validation_fraction": 1 / videos},
        training={"batch_videos": batch, "keep": "last"},
    )
    found = cautions(config, tmp_path, processes)
    assert len(found) == bool(said)
    assert all(said in text and "teaches retrieval nothing" in text for text in found)


def test_windows_of_one_long_video_are_one_video(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = data_of(tmp_path / "d", {"v0": 0, "v1": 1}, sentences=4, length=40)
    config = tiny_config(data={"folder": str(data)}, long_videos={"window_seconds": 10})
    assert "one single video is trained on" in cautions(config, tmp_path)[0]


def test_videos_with_the_same_features_are_told(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = data_of(tmp_path / "d", {f"v{i}": 0 for i in range(6)})
    config = tiny_config(data={"folder": str(data)}, training={"keep": "last"})
    (found,) = cautions(config, tmp_path)
    assert found.startswith("all 5 videos of a batch have the very same features")


@pytest.mark.parametrize(
    ("held_out", "keep", "said"), [(9, "best", True), (10, "best", False), (9, "last", False)]
)
def test_too_few_held_out_videos_are_told(
    tiny_config: MakeConfig, tmp_path: Path, held_out: int, keep: str, said: bool
) -> None:
    config = tiny_config(data={"validation_fraction": held_out / 24}, training={"keep": keep})
    found = cautions(config, tmp_path)
    assert len(found) == said
    assert all("9 video(s) are held out, too few to choose" in text for text in found)


def test_a_run_keeps_what_it_was_warned_of(
    tiny_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(tmp_path / "d", {"v0": 0, "v1": 1})
    train(tiny_config(data={"folder": str(data)}, training={"epochs": 1}), tmp_path / "m", quiet=True)
    kept = json.loads((tmp_path / "m" / "run.json").read_text())["warnings"]
    assert ["one single video" in kept[0], "1 video(s) are held out" in kept[1]] == [True, True]
    assert [record.getMessage() for record in caplog.records if record.name == "dciml"] == kept
