"""What is inside a model folder and an index; the half of `inspect` that needs the model's libraries."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dciml.errors import DcimlError, ModelError
from dciml.features.long_videos import WindowedStore
from dciml.files import read_json
from dciml.index import ClipIndex
from dciml.inputs import check_input_file
from dciml.recipes.inspect import Inspection, Section, Value, durations_section
from dciml.search.long_videos import WindowedIds

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
        content = read_json(path / "run.json")
        sections.extend(_run(content))
        findings += [str(warning) for warning in content.get("warnings", [])]
    sections.append(Section("files", {"can_resume": ((path / CHECKPOINT_FILE).exists(),)}))
    return Inspection("model", path, tuple(sections), tuple(findings))


def inspect_index(path: Path) -> Inspection:
    """Videos, vectors, durations, and whether the model and the features that it names are still there.

    Raises:
        ModelError: the index is damaged.
    """
    index = ClipIndex.open(path)
    windowed = WindowedIds(index.video_ids)
    own = dict(zip(index.video_ids, index.durations_seconds.tolist(), strict=True))
    seconds = [windowed.duration_seconds(video_id) or own[video_id] for video_id in windowed.whole_videos]
    facts: dict[str, tuple[Value, ...]] = {
        "videos": (len(seconds),),
        "with_windows_of_long_videos": (len(index),),
        "clips_a_window": (index.num_clips,),
        "vectors": (len(index) * index.num_clips,),
        "width": (index.width,),
        "bytes": (sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),),
        "fingerprint": (index.fingerprint[:12],),
    }
    model, model_findings = _model_of(index)
    features, feature_findings = _features_of(index, windowed)
    sections = [Section("index", facts)]
    if seconds:
        sections.append(durations_section("durations", seconds))
    findings = [] if seconds else ["the index holds no video: add some with `dciml index-add`"]
    return Inspection(
        "index", path, (*sections, model, features), (*findings, *model_findings, *feature_findings)
    )


def _parameters(file: Path) -> Section:
    """Numbers of parameters, by the first part of their names."""
    counts: Counter[str] = Counter()
    check_input_file(file)
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


def _run(content: Any) -> list[Section]:
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


def _features_of(index: ClipIndex, windowed: WindowedIds) -> tuple[Section, list[str]]:
    stores: dict[Path, WindowedStore] = {}
    findings: dict[str, None] = {}
    lost = 0
    for video_id in index.video_ids:
        try:
            place = index.store_path(video_id)
            if place not in stores:
                stores[place] = WindowedStore.open(place)
            lost += video_id not in stores[place]
        except DcimlError as error:
            findings[str(error)] = None
            lost += 1
    if lost:
        mend = "searches that find them fail: bring the features back, or take the videos out"
        findings[f"{lost} video(s) or windows have no features any more; {mend}"] = None
    first = [index.video(windowed.expand([video_id])[0]) for video_id in windowed.whole_videos]
    media = [video.media_path for video in first if video.media_path is not None]
    rows: dict[str, tuple[Value, ...]] = {
        "stores": (len(stores),),
        "videos_without_features": (lost,),
        "media_files_known": (len(media),),
        "media_files_still_there": (sum(Path(file).exists() for file in media),),
    }
    return Section("features", rows), list(findings)


def _plain(value: Any) -> Value:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
