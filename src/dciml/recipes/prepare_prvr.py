"""Import a PRVR release (MS-SL, GMMFormer and their kin): BigFile features, captions, query features.

FOLDER/TextData/activitynettrain.caption.txt, activitynetval.caption.txt, roberta_activitynet_query_feat.hdf5
FOLDER/FeatureData/i3d/feature.bin, id.txt, shape.txt, video2frames.txt
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dciml.datasets import (
    PRVR_COUNTS,
    Annotated,
    QueryFile,
    read_activitynet,
    read_charades_durations,
    read_charades_sta,
    read_didemo,
    read_prvr_captions,
    read_tvr,
)
from dciml.errors import DataError, Where
from dciml.features import QUERY_FEATURES_FILE, is_bigfile, open_features, write_query_features
from dciml.files import read_json
from dciml.recipes.prepare import ImportOptions, ImportSummary, SplitInput, assemble

TEXT_FOLDER, FEATURE_FOLDER = "TextData", "FeatureData"
_CAPTIONS = re.compile(r"(?P<collection>.+?)(?P<split>train|val|test)\.caption\.txt")


@dataclass(frozen=True)
class PrvrRelease:
    """The files of a release; `query_features` is None where it has none."""

    collection: str
    captions: Mapping[str, Path]
    features: Path
    query_features: Path | None


def find_release(folder: Path, feature: str | None = None) -> PrvrRelease:
    """Find the files of a release.

    Args:
        folder: of one collection, with `TextData` and `FeatureData` in it.
        feature: the folder in `FeatureData`; needed where there are several.
    Raises:
        DataError: something is not there; the message says what.
    """
    text = folder / TEXT_FOLDER
    if not text.is_dir():
        mend = f"name the folder of one collection, with {TEXT_FOLDER} and {FEATURE_FOLDER} in it"
        raise DataError(f"there is no {TEXT_FOLDER} here", where=folder, mend=mend)
    matches = [(match, path) for path in sorted(text.iterdir()) if (match := _CAPTIONS.fullmatch(path.name))]
    captions = {match["split"]: path for match, path in matches}
    if not captions or len({match["collection"] for match, _ in matches}) > 1:
        names = ", ".join(path.name for _, path in matches) or "none"
        what = f"one collection's captions must be here; the caption files are: {names}"
        raise DataError(what, where=text, mend="put …train.caption.txt and …val.caption.txt there")
    order = ("train", "val", "test")
    return PrvrRelease(
        matches[0][0]["collection"],
        dict(sorted(captions.items(), key=lambda item: order.index(item[0]))),
        _feature_folder(folder / FEATURE_FOLDER, feature),
        next(iter(sorted(text.glob("*query_feat.hdf5"))), None),
    )


def prepare_prvr(
    folder: Path,
    out: Path,
    options: ImportOptions,
    annotations: Sequence[Path] = (),
    feature: str | None = None,
) -> ImportSummary:
    """Import a release; captions keep their ids, and query features go into the data folder by sentence.

    Args:
        annotations: files of the data set itself, which give moments and lengths of videos (the release has neither):
            ActivityNet's JSON, Charades-STA's text with the Charades CSV files, TVR's JSON lines, DiDeMo's JSON.
            Without them `rows_per_second` must tell the lengths, and evaluation of moments is not possible.
        feature: see `find_release`.
    Raises:
        DataError: as `find_release` and `assemble`.
    """
    release = find_release(folder, feature)
    annotated = Annotated.of(_read_annotations(annotations, options))
    counts = PRVR_COUNTS.get(release.collection, {})
    inputs: dict[str, SplitInput] = {}
    for split, path in release.captions.items():
        file = read_prvr_captions(path, annotated)
        corpus = tuple(dict.fromkeys(query.video_id for query in file.queries))
        inputs[split] = SplitInput(path, file, corpus, counts.get(split))
    source = open_features(release.features, release.features.name, options.encoder, options.rows_per_second)
    build_text = None
    if release.query_features is not None:
        have = frozenset(source.video_ids)
        pairs = [
            (query.query_id, query.sentence)
            for part in inputs.values()
            for query in part.file.queries
            if query.video_id in have
        ]
        build_text = partial(_write_text, release.query_features, sentences=pairs)
    return assemble(out, release.collection, inputs, source, options, build_text)


def _write_text(released: Path, folder: Path, sentences: Sequence[tuple[str, str]]) -> None:
    write_query_features(released, folder / QUERY_FEATURES_FILE, sentences)


def _feature_folder(parent: Path, feature: str | None) -> Path:
    if feature is not None:
        return parent / feature
    found = (
        sorted(path for path in parent.iterdir() if path.is_dir() and is_bigfile(path))
        if parent.is_dir()
        else []
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        what = f"there are several features here ({names})" if found else "there are no features here"
        mend = (
            "choose one with --feature NAME" if found else "put NAME/feature.bin, id.txt, shape.txt, … there"
        )
        raise DataError(what, where=parent, mend=mend)
    return found[0]


def _read_annotations(paths: Sequence[Path], options: ImportOptions) -> list[QueryFile]:
    """Annotation files of whatever data set, told apart by ending and form."""
    durations: dict[str, float] = {}
    for path in paths:
        if path.suffix == ".csv":
            durations.update(read_charades_durations(path))
    how = (options.past_end, options.bad_moments)
    files = []
    for path in paths:
        if path.suffix == ".txt":
            files.append(read_charades_sta(path, path.stem, durations, *how))
        elif path.suffix == ".jsonl":
            files.append(read_tvr(path, path.stem, *how))
        elif path.suffix == ".json":
            read = read_didemo if isinstance(read_json(path), list) else read_activitynet
            files.append(read(path, path.stem, *how))
        elif path.suffix != ".csv":
            mend = "name .json (ActivityNet, DiDeMo), .jsonl (TVR), or .txt and .csv (Charades)"
            raise DataError("annotations of this form are not known", where=Where(path), mend=mend)
    return files
