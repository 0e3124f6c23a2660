"""What is inside a model folder and an index; the half of `inspect` that needs the model's libraries."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dciml.errors import DcimlError, ModelError
from dciml.features.store import FeatureStore
from dciml.files import read_json
from dciml.index import ClipIndex
from dciml.recipes.inspect import Inspection, Section, Value, durations_section

WEIGHTS_FILE, CHECKPOINT_FILE = "model.safetensors", "checkpoint.safetensors"
SETTINGS = (
    "name", "seed", "data.folder", "data.train_split", "text.encoder", "retrieval.hidden", "retrieval.num_clips",
    "grounding.hidden", "grounding.num_proposals", "training.epochs", "training.batch_videos", "mutual.from_epoch",
)  # fmt: skip


def inspect_model(path: Path) -> Inspection:
    """Kind, encoders, parameters of each side, the settings that matter most, and what it was trained on.

    Raises:
        ModelError: model.json or the weights are damaged.
    """
    card = read_json(path / "model.json")
    if not isinstance(card, dict):
        raise ModelError(f"{path / 'model.json'}: damaged, it does not describe a model; train again")
    findings = []
    sections = [Section("model", {name: (_plain(value),) for name, value in card.items()})]
    if (path / WEIGHTS_FILE).exists():
        sections.append(_parameters(path / WEIGHTS_FILE))
    else:
        findings.append(
            f"there are no weights ({WEIGHTS_FILE}): training is not done, or the copy is incomplete"
        )
    if (path / "config.yaml").exists():
        sections.append(_settings(path / "config.yaml"))
    if (path / "run.json").exists():
        sections.extend(_run(path / "run.json"))
    sections.append(Section("files", {"can_resume": ((path / CHECKPOINT_FILE).exists(),)}))
    return Inspection("model", path, tuple(sections), tuple(findings))


def inspect_index(path: Path) -> Inspection:
    """Videos, vectors, durations, and whether the model and the features that it names are still there.

    Raises:
        ModelError: the index is damaged.
    """
    index = ClipIndex.open(path)
    num_videos = len(index)
    facts: dict[str, tuple[Value, ...]] = {
        "videos": (num_videos,),
        "clips_a_video": (index.num_clips,),
        "vectors": (num_videos * index.num_clips,),
        "width": (index.width,),
        "bytes": (num_videos * index.num_clips * index.width * 4,),
        "fingerprint": (index.fingerprint[:12],),
    }
    model, model_findings = _model_of(index)
    features, feature_findings = _features_of(index)
    sections = [Section("index", facts)]
    if num_videos:
        sections.append(durations_section("durations", index.durations_seconds))
    findings = [] if num_videos else ["the index holds no video: add some with `dciml index-add`"]
    return Inspection(
        "index", path, (*sections, model, features), (*findings, *model_findings, *feature_findings)
    )


def _parameters(file: Path) -> Section:
    """Numbers of parameters, by the first part of their names."""
    counts: Counter[str] = Counter()
    try:
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118
                counts[name.partition(".")[0]] += math.prod(weights.get_slice(name).get_shape())
    except SafetensorError as error:
        raise ModelError(f"{file}: the file is damaged ({error}); restore it or train again") from error
    rows: dict[str, tuple[Value, ...]] = {name: (count,) for name, count in sorted(counts.items())}
    return Section("parameters", rows | {"all": (counts.total(),), "bytes": (file.stat().st_size,)})


def _settings(file: Path) -> Section:
    from dciml.config import load_config

    tree = load_config(file).model_dump(mode="json")
    rows: dict[str, tuple[Value, ...]] = {}
    for key in SETTINGS:
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        rows[key] = (_plain(value),)
    return Section("settings", rows)


def _run(file: Path) -> list[Section]:
    content = read_json(file)
    trained_on = content.get("trained_on")
    versions = {"python": content.get("python"), **content.get("packages", {})}
    versions["git_revision"] = str(content.get("git_revision") or "unknown")[:12]
    sections = [Section("made_with", {name: (_plain(value),) for name, value in versions.items()})]
    if isinstance(trained_on, dict):
        sections.insert(0, Section("trained_on", {k: (_plain(v),) for k, v in trained_on.items()}))
    return sections


def _model_of(index: ClipIndex) -> tuple[Section, list[str]]:
    from dciml.build import load_model

    try:
        folder = index.model_folder()
        index.check_fingerprint(load_model(folder).engine.fingerprint)
    except DcimlError as error:
        return Section("model", {"still_there": (False,)}), [str(error)]
    return Section("model", {"still_there": (True,), "folder": (str(folder),)}), []


def _features_of(index: ClipIndex) -> tuple[Section, list[str]]:
    stores: dict[Path, FeatureStore] = {}
    findings: dict[str, None] = {}
    lost = 0
    for video_id in index.video_ids:
        try:
            place = index.store_path(video_id)
            if place not in stores:
                stores[place] = FeatureStore.open(place)
            lost += video_id not in stores[place]
        except DcimlError as error:
            findings[str(error)] = None
            lost += 1
    if lost:
        findings[f"{lost} video(s) have no features any more: they are found, but not grounded"] = None
    rows: dict[str, tuple[Value, ...]] = {
        "stores": (len(stores),),
        "videos_without_features": (lost,),
    }
    return Section("features", rows), list(findings)


def _plain(value: Any) -> Value:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
