"""What a run says of itself in `run.json`: versions, revision, and what it was trained on."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dciml.config import RunConfig
from dciml.features.store import FeatureStore
from dciml.training.loader import PairData

PACKAGES = ("dciml", "torch", "numpy", "lightning-fabric", "transformers", "safetensors")


def describe_run(
    config: RunConfig, training: PairData, held_out: PairData, warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of `run.json`; nothing of it decides how the model answers, but for the lengths of the videos."""
    return made_with() | {"trained_on": trained_on(config, training, held_out), "warnings": list(warnings)}


def made_with() -> dict[str, Any]:
    """Git revision, Python and packages."""
    return {
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def trained_on(config: RunConfig, data: PairData, held_out: PairData) -> dict[str, Any]:
    """What and how much; the lengths are those of what the model saw as one video."""
    seen = [name for video_id in data.by_video() for name in data.windows.get(video_id, (video_id,))]
    return {
        "data": config.data.folder,
        "sentences": len(data.pairs),
        "videos": len(data.by_video()),
        "long_videos": len(data.windows),
        "held_out_videos": len(held_out.by_video()),
        **lengths(data.store, seen),
    }


def lengths(store: FeatureStore, seen: Sequence[str]) -> dict[str, float]:
    """Of the videos that a model saw; the longest decides how an index splits longer ones."""
    seconds = np.array([store.duration_seconds(name) for name in seen])
    return {
        "min_seconds": float(seconds.min()),
        "median_seconds": float(np.median(seconds)),
        "max_seconds": float(seconds.max()),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
