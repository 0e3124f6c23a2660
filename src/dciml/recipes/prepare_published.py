"""Import a published data set from the folder of its annotations, as released, and released features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dciml.datasets.didemo import read_didemo
from dciml.datasets.published import CPL, DIDEMO, PublishedSet
from dciml.datasets.records import QueryFile
from dciml.errors import DataError
from dciml.features.renamed import with_names_of
from dciml.features.source import FeatureSource, open_features
from dciml.features.word_vectors import FILE_NAME, read_cpl_vectors, write_word_vectors
from dciml.recipes.prepare import Features, ImportOptions, ImportSummary, SplitInput, assemble

VECTORS_FILE = "glove.pkl"


def prepare_published(
    data: PublishedSet,
    folder: Path,
    features: Features,
    out: Path,
    options: ImportOptions,
    splits: Sequence[str] = (),
) -> ImportSummary:
    """Import a published data set; every video of a file is in the corpus of its split.

    Args:
        folder: holds the annotations under their released names; splits whose files are not there are left out.
        features: files of any form that `open_features` reads.
        splits: only these; default: all.
    Raises:
        DataError: as `assemble`; or a split that is asked for is unknown or not there.
    """
    files = _chosen(data, folder, splits)
    read = {
        split: data.read(path, split, options.past_end, options.bad_moments) for split, path in files.items()
    }
    source = open_features(features, data.name, options.encoder, options.rows_per_second)
    source = with_names_of(source, [video_id for file in read.values() for video_id in file.durations])
    if data is DIDEMO and source.durations:
        read = {split: _didemo(path, split, source, options) for split, path in files.items()}
    inputs = {
        split: SplitInput(path, read[split], tuple(read[split].durations), data.expected(split, path))
        for split, path in files.items()
    }
    return assemble(out, data.name, inputs, source, options, _word_vectors(folder) if data is CPL else None)


def _chosen(data: PublishedSet, folder: Path, splits: Sequence[str]) -> dict[str, Path]:
    found = data.find(folder)
    for split in splits:
        if split not in found:
            wanted = " or ".join(data.splits.get(split, ()))
            what = f"there is no file of the split {split!r}"
            mend = f"put {wanted} there" if wanted else f"choose one of {', '.join(data.splits)}"
            raise DataError(what, where=folder, mend=mend)
    return {split: path for split, path in found.items() if not splits or split in splits}


def _didemo(path: Path, split: str, source: FeatureSource, options: ImportOptions) -> QueryFile:
    """DiDeMo again, with the true lengths of its videos; the release only counts five-second chunks."""
    return read_didemo(path, split, options.past_end, options.bad_moments, source.durations)


def _word_vectors(folder: Path) -> Callable[[Path], object] | None:
    file = folder / VECTORS_FILE
    if not file.is_file():
        return None
    words, vectors = read_cpl_vectors(file)
    return lambda text: write_word_vectors(text / FILE_NAME, words, vectors)
