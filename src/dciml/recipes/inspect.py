"""What is inside a feature store, a data folder, a model folder or an index, and what is wrong with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dciml.datasets import DATA_FILE, FEATURES_FOLDER, VIDEOS_FILE, DataFolder, read_pairs, read_rows
from dciml.errors import DataError, DcimlError, ModelError
from dciml.features import MANIFEST_FILE, FeatureStore, Vocabulary, WindowedStore, rows_fit, tokenize
from dciml.files import read_json
from dciml.folders import CARD_FILE, CHECKPOINT_FILE, RUN_FILE, SETTINGS_FILE, WEIGHTS_FILE, how_to_add
from dciml.homes import home_meant, index_in_use
from dciml.index import ClipIndex
from dciml.inputs import check_input_file
from dciml.search import WindowedIds
from dciml.types import TrainingPair

ROWS_AT_ONCE = 16_384
MARKS = {DATA_FILE: "data", MANIFEST_FILE: "store", CARD_FILE: "model", "catalogue.sqlite": "index"}
"""The file by which each kind of folder is known."""

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Section:
    """A table: `rows` gives each name its values, one a column; a single column has no heading."""

    title: str
    rows: dict[str, tuple[Value, ...]]
    columns: tuple[str, ...] = ("",)

    def to_json(self) -> dict[str, Any]:
        """The values by row name and, where there are several columns, by column."""
        if len(self.columns) == 1:
            return {name: values[0] for name, values in self.rows.items()}
        return {name: dict(zip(self.columns, values, strict=True)) for name, values in self.rows.items()}


@dataclass(frozen=True)
class Inspection:
    """What a folder holds; `findings` are sentences on what deserves a look."""

    kind: str
    path: Path
    sections: tuple[Section, ...]
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `dciml inspect --json` prints it."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            **{section.title: section.to_json() for section in self.sections},
            "findings": list(self.findings),
        }


def inspect(path: Path) -> Inspection:
    """Look into a folder of any kind; of a home, into the index that is in use. Reads all rows of a store.

    Raises:
        DataError: it is none of the four, or so damaged that nothing can be said of it.
        ModelError: a model or an index is damaged.
    """
    if (home := home_meant(path)) is not None:
        path = index_in_use(home)
    kind = recognise(path)
    if kind == "store":
        return inspect_store(path)
    if kind == "data":
        return inspect_data(path)

    return inspect_model(path) if kind == "model" else inspect_index(path)


def recognise(path: Path) -> str:
    """`store`, `data`, `model` or `index`, by the file that only this kind has.

    Raises:
        DataError: none of them; folders inside that are one are named.
    """
    for name, kind in MARKS.items():
        if (path / name).is_file():
            return kind
    what = "this is neither a store nor a data folder nor a model nor an index"
    if not path.exists():
        what = "there is no such folder"
    inside = sorted(file.parent.name for name in MARKS for file in path.glob(f"*/{name}"))
    mend = f"name one of its folders: {', '.join(inside)}" if inside else "check the path"
    raise DataError(what, where=path, mend=mend)


def inspect_store(path: Path) -> Inspection:
    """Counts, durations and the health of the rows of a feature store."""
    sections, findings = _of_store(FeatureStore.open(path))
    return Inspection("store", path, sections, tuple(findings))


def _of_store(store: FeatureStore) -> tuple[tuple[Section, ...], list[str]]:
    if not len(store):
        return (), ["the store holds no video: extract or import features"]
    health, findings = _health(store)
    return (_store_facts(store), _durations_of(store), health), findings


def inspect_data(path: Path) -> Inspection:
    """The splits of a data folder, what is missing between sentences and features, and its store."""
    description = read_json(path / DATA_FILE)
    splits = list(description.get("splits", {})) if isinstance(description, dict) else []
    findings = []
    try:
        DataFolder.open(path)
    except DataError as error:
        findings.append(f"the parts do not fit together: {error}")
    store = FeatureStore.open(path / FEATURES_FOLDER)
    corpora = _corpora(path)
    pairs = {split: read_pairs(path / f"{split}.jsonl") for split in splits}
    table = _splits_table(splits, pairs, corpora, store)
    asked = {pair.video_id for some in pairs.values() for pair in some}
    unasked = [video_id for video_id in store.video_ids if video_id not in asked]
    facts = Section(
        "data",
        {
            "name": (str(description.get("name")),),
            "features": (_source_of(description),),
            "features_without_sentences": (len(unasked),),
        },
    )
    lonely = sum(int(count or 0) for count in table.rows["sentences_without_features"])
    if lonely:
        findings.append(f"{lonely} sentence(s) ask for a video without features: add its features")
    sections, unhealthy = _of_store(store)
    return Inspection("data", path, (facts, table, *sections), (*findings, *unhealthy))


def durations_section(title: str, seconds: Sequence[float] | NDArray[np.float64]) -> Section:
    """Shortest, median, longest and total duration."""
    values = np.asarray(seconds, dtype=np.float64)
    figures = {"min": values.min(), "median": np.median(values), "max": values.max(), "total": values.sum()}
    return Section(title, {f"{name}_seconds": (float(value),) for name, value in figures.items()})


def _source_of(description: dict[str, Any]) -> str | None:
    notes = description.get("notes", {})
    return str(notes["features"]) if isinstance(notes, dict) and "features" in notes else None


def _corpora(path: Path) -> dict[str, list[str]]:
    corpora: dict[str, list[str]] = {}
    for _, row in read_rows(path / VIDEOS_FILE):
        corpora.setdefault(str(row.get("split")), []).append(str(row.get("video_id")))
    return corpora


def _splits_table(
    splits: Sequence[str],
    pairs: dict[str, tuple[TrainingPair, ...]],
    corpora: dict[str, list[str]],
    store: FeatureStore,
) -> Section:
    training = pairs.get("train") or next(iter(pairs.values()), ())
    vocabulary = Vocabulary.build(pair.sentence for pair in training)
    rows: dict[str, tuple[Value, ...]] = {}
    for split in splits:
        some, corpus = pairs[split], corpora.get(split, [])
        asked = {pair.video_id for pair in some}
        words = [len(tokenize(pair.sentence)) for pair in some]
        lengths = [store.duration_seconds(video_id) for video_id in corpus if video_id in store]
        figures: dict[str, Value] = {
            "videos": len(corpus),
            "sentences": len(some),
            "words_a_sentence": float(np.median(words)) if words else None,
            "known_words_share": vocabulary.coverage(pair.sentence for pair in some),
            "videos_without_sentences": sum(video_id not in asked for video_id in corpus),
            "sentences_without_features": sum(pair.video_id not in store for pair in some),
            "median_seconds": float(np.median(lengths)) if lengths else None,
            "max_seconds": max(lengths, default=None),
        }
        for name, value in figures.items():
            rows[name] = (*rows.get(name, ()), value)
    return Section("splits", rows, tuple(splits))


def _store_facts(store: FeatureStore) -> Section:
    manifest = store.manifest
    num_rows = sum(store.num_rows(video_id) for video_id in store.video_ids)
    seconds = sum(store.duration_seconds(video_id) for video_id in store.video_ids)
    files = [Path(source) for source in map(store.source, store.video_ids) if source is not None]
    return Section(
        "store",
        {
            "encoder": (manifest.encoder,),
            "made_by": (" ".join(f"--encoder {spec}" for spec in manifest.encoder_specs) or "not known",),
            "width": (manifest.width,),
            "rows_per_second": (manifest.rows_per_second or num_rows / seconds,),
            "rows_per_second_is_fixed": (manifest.rows_per_second is not None,),
            "videos": (len(store),),
            "rows": (num_rows,),
            "bytes": (num_rows * manifest.width * 2,),
            "media_files_still_there": (sum(file.is_absolute() and file.exists() for file in files),),
        },
    )


def _durations_of(store: FeatureStore) -> Section:
    return durations_section("durations", [store.duration_seconds(v) for v in store.video_ids])


def _health(store: FeatureStore) -> tuple[Section, list[str]]:
    """Rows of zeros, rows with numbers that are not finite, and checksums; reads every row."""
    without_norm: dict[str, int] = {}
    not_finite: dict[str, int] = {}
    for video_id in store.video_ids:
        for rows in _blocks(store.unchecked_rows(video_id)):
            zeros, bad = int((~rows.any(axis=1)).sum()), int((~np.isfinite(rows).all(axis=1)).sum())
            if zeros:
                without_norm[video_id] = without_norm.get(video_id, 0) + zeros
            if bad:
                not_finite[video_id] = not_finite.get(video_id, 0) + bad
    damaged = store.verify()
    off_rate = _off_rate(store)
    figures = {
        "rows_without_norm": sum(without_norm.values()),
        "rows_not_finite": sum(not_finite.values()),
        "videos_with_wrong_checksum": len(damaged),
    }
    findings = [f"{sentence}: extract or import it again" for sentence in damaged[:3]]
    if off_rate:
        findings.append(
            f"rows, rows per second and length do not agree in {len(off_rate)} video(s), {off_rate[0]!r} first; "
            "answers go by the rows: import again with the right rate"
        )
    silence = store.manifest.encoder.startswith("text:")  # rows of captions are zero where nothing is said
    for found, what in (({} if silence else without_norm, "only zeros"), (not_finite, "NaN or infinity")):
        if found:
            worst = max(found, key=lambda video_id: found[video_id])
            findings.append(
                f"{sum(found.values())} row(s) of {len(found)} video(s) hold {what}, most of them in {worst!r}: "
                "extract it again, or leave it out"
            )
    return Section("rows", {name: (count,) for name, count in figures.items()}), findings


def _off_rate(store: FeatureStore) -> list[str]:
    rate = store.manifest.rows_per_second
    return [
        video_id
        for video_id in store.video_ids
        if rate and not rows_fit(store.num_rows(video_id), store.duration_seconds(video_id), rate)
    ]


def _blocks(rows: NDArray[np.float16]) -> Iterator[NDArray[np.float16]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


SETTINGS = (
    "name", "seed", "data.folder", "data.train_split", "text.encoder", "retrieval.hidden", "retrieval.num_clips",
    "grounding.hidden", "grounding.num_proposals", "training.epochs", "training.batch_videos", "mutual.from_epoch",
)  # fmt: skip


def inspect_model(path: Path) -> Inspection:
    """Kind, encoders, parameters of each side, the settings that matter most, and what it was trained on.

    Raises:
        ModelError: model.json or the weights are damaged.
    """
    card = read_json(path / CARD_FILE)
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
    if (path / SETTINGS_FILE).exists():
        sections.append(_settings(path / SETTINGS_FILE))
    if (path / RUN_FILE).exists():
        content = read_json(path / RUN_FILE)
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
    findings = [] if seconds else [f"the index holds no video: {how_to_add(index.path)}"]
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
    from dciml.model_folder import load_model

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
