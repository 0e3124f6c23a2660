"""Query features that a release ships: rows of another encoder's tokens, kept by sentence.

The PRVR releases hold RoBERTa's token features of every caption, not the encoder that made them. They are copied into
the data folder, and `QueryFeatureEncoder` gives them back wherever the sentence comes up: in training and in
evaluation of that data. A new sentence has none, and cannot be encoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.base import EncodedSentence, FloatRows
from dciml.features.encoders.words import WordEncoder, split_sentence
from dciml.features.pooling import l2_normalize, mean_pool
from dciml.features.sources.arrays import as_rows
from dciml.features.sources.hdf5 import check_dataset, damage_named, item_inside, opened_hdf5
from dciml.features.vocabulary import Vocabulary, tokenize
from dciml.files import atomic_path

QUERY_FEATURES_FILE = "query_features.h5"
_FORMAT = "dciml query features 1"
_CHUNK_ROWS = 256


def write_query_features(
    released: str | Path, path: Path, sentences: Iterable[tuple[str, str]]
) -> tuple[int, int]:
    """Copy the features of some sentences into one file, in order and with bounded memory.

    Args:
        released: an HDF5 file with one dataset [tokens, width] a query, named by the query's id.
        path: the file to write. Rows are L2-normalised and kept as float16.
        sentences: (query id, sentence); of equal sentences the first counts, since their features are equal.
    Returns: how many sentences were written, and the width.
    Raises:
        DataError: not an HDF5 file, or a query's dataset is missing or malformed; it is named.
    """
    released = Path(released)
    texts: dict[str, int] = {}
    digest = hashlib.sha256()
    # Not locked by HDF5: the temporary file is by us.
    with (
        opened_hdf5(released) as source,
        atomic_path(path) as temporary,
        h5py.File(temporary, "w", locking=False) as file,
    ):
        rows_file: h5py.Dataset | None = None
        ends: list[int] = []
        for query_id, sentence in sentences:
            if sentence in texts:
                continue
            rows = _released_rows(source, query_id, released)
            if rows_file is None:
                width = rows.shape[1]
                rows_file = file.create_dataset(
                    "rows", (0, width), "<f2", maxshape=(None, width), chunks=(_CHUNK_ROWS, width)
                )
            _append(rows_file, rows, Where(released, field=query_id))
            digest.update(sentence.encode() + rows.tobytes())
            texts[sentence] = len(texts)
            ends.append(len(rows_file))
        if rows_file is None:
            raise DataError(
                "there is no sentence to take features of", where=released, mend="check the captions"
            )
        file.create_dataset("ends", data=np.array(ends, dtype=np.int64))
        file.create_dataset("sentences", data=list(texts), dtype=h5py.string_dtype())
        file.attrs["format"], file.attrs["digest"] = _FORMAT, digest.hexdigest()
    return len(texts), int(rows.shape[1])


class QueryFeatureEncoder:
    """A text encoder that knows the sentences of a release, and no others.

    The released rows belong to the tokens of an encoder that is not there, which are not our words. `contextual` has
    one row a word all the same, since retrieval reads the rows as a sequence: the T token rows, in order, are averaged
    in as many equal parts as the sentence has words. `static`, the words that grounding predicts from, comes from
    the project's own word encoder, because a bidirectional encoder's rows would give the words away.

    Args:
        path: a file of `write_query_features`, or the folder that holds one.
        vocabulary: of the training sentences.
        max_words: later words of a sentence are dropped.
    Raises:
        DataError: there is no such file, or it is another one.
    """

    def __init__(self, path: str | Path, vocabulary: Vocabulary, max_words: int = 30) -> None:
        path = Path(path)
        self._path = path / QUERY_FEATURES_FILE if path.is_dir() else path
        self._max_words, self._static = max_words, WordEncoder(vocabulary, max_words=max_words)
        if not self._path.is_file():
            mend = (
                "import a release that ships query features (`dciml import prvr`), or set text.encoder to one that "
                "reads the sentences, for example minilm"
            )
            raise DataError("there are no query features here", where=self._path, mend=mend)
        with opened_hdf5(self._path) as file:
            if file.attrs.get("format") != _FORMAT:
                raise DataError(
                    "these are no query features of a data folder", where=self._path, mend="import again"
                )
            self._width = int(file["rows"].shape[1])
            self._ends: NDArray[np.int64] = file["ends"][...]
            texts = file["sentences"].asstr()[...]
            digest = str(file.attrs["digest"])
        self._number_of = {text: number for number, text in enumerate(texts)}
        self._name = f"released@{digest[:16]}x{max_words}+{self._static.name}"

    @property
    def name(self) -> str:
        """Digest of the features, longest sentence, and the encoder of the static rows."""
        return self._name

    @property
    def width(self) -> int:
        """Width of the released rows."""
        return self._width

    @property
    def static_width(self) -> int:
        """Width of the project's own word rows."""
        return self._static.static_width

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        """Give the features of sentences of the release. Raises DataError for a sentence that it does not hold."""
        with opened_hdf5(self._path) as file:
            return [self._encode_one(sentence, file["rows"]) for sentence in sentences]

    def _encode_one(self, sentence: str, rows: h5py.Dataset) -> EncodedSentence:
        number = self._number_of.get(sentence)
        if number is None:
            raise DataError(
                f"the sentence {sentence!r} is none of the {len(self._number_of):,} whose features were released, and "
                "the encoder that made them is not there",
                where=self._path,
                mend=f"ask one of them to the letter, for example {next(iter(self._number_of), '')!r}; for any other "
                "train with a text encoder that reads sentences, for example --set text.encoder=minilm",
            )
        words = split_sentence(sentence, self._max_words)
        start = int(self._ends[number - 1]) if number else 0
        tokens = rows[start : int(self._ends[number])].astype(np.float32)
        by_word = mean_pool(tokens, len(tokenize(sentence)))[: len(words)]  # (L, width)
        static = self._static.encode([sentence])[0].static
        return EncodedSentence(words, l2_normalize(by_word), static)


def _released_rows(source: h5py.File, query_id: str, path: Path) -> FloatRows:
    place = Where(path, field=query_id)
    with damage_named(place):
        is_there = query_id in source
    item = item_inside(source, query_id, place) if is_there else None
    if not isinstance(item, h5py.Dataset):
        raise DataError(
            "there are no features of this query", where=place, mend="name the release's own file"
        )
    check_dataset(item, place)
    with damage_named(place):
        values = np.asarray(item[...], dtype=np.float32)
    rows = as_rows(values, place)
    if not np.isfinite(rows).all():
        raise DataError("a value is not finite", where=place, mend="copy the file again")
    return l2_normalize(rows)


def _append(rows_file: h5py.Dataset, rows: FloatRows, place: Where) -> None:
    if rows.shape[1] != rows_file.shape[1]:
        what = f"the features are {rows.shape[1]} wide, those before are {rows_file.shape[1]}"
        raise DataError(what, where=place, mend="name the release's own file")
    start = len(rows_file)
    rows_file.resize(start + len(rows), axis=0)
    rows_file[start:] = rows
