"""A vector a word, from a table such as GloVe's: the text side of CPL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from dciml.errors import DataError, Where
from dciml.features.base import FloatRows
from dciml.features.encoded_text import read_arrays, write_arrays
from dciml.features.encoders.words import OneWordRows, WordEncoder
from dciml.features.pooling import l2_normalize
from dciml.features.sources.plain_pickle import read_plain_pickle
from dciml.features.vocabulary import Vocabulary

WORD_VECTORS_FILE = "word_vectors.safetensors"
_CPL = "name the glove.pkl of the CPL release"


def read_cpl_vectors(path: str | Path) -> tuple[tuple[str, ...], FloatRows]:
    """Words and vectors (N, width) of a `glove.pkl` of the CPL release, which is not unpickled.

    The file holds a dict with `w2id`, word → number, and `id2vec`, number → vector; what else it holds is not read.

    Raises:
        DataError: as `read_plain_pickle`, or another form.
    """
    path = Path(path)
    content = read_plain_pickle(path)
    if not isinstance(content, dict) or not {"w2id", "id2vec"} <= content.keys():
        raise DataError("the pickle has no w2id and id2vec", where=path, mend=_CPL)
    ids, vectors = content["w2id"], content["id2vec"]
    if not isinstance(ids, dict) or not isinstance(vectors, list | dict | np.ndarray) or not ids:
        raise DataError("w2id is not a dict, or id2vec holds no vectors", where=path, mend=_CPL)
    words = tuple(map(str, ids))
    return words, np.stack([_vector(vectors, word, number, path) for word, number in ids.items()])


def _vector(vectors: Any, word: object, number: object, path: Path) -> FloatRows:
    place = Where(path, field=f"id2vec of {word!r}")
    try:
        vector = np.asarray(vectors[number], dtype=np.float32)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError("there is no vector", where=place, mend=_CPL) from error
    first = np.asarray(next(iter(vectors.values())) if isinstance(vectors, Mapping) else vectors[0])
    if vector.ndim != 1 or vector.shape != first.shape or not np.isfinite(vector).all():
        what = f"the vector has the shape {vector.shape}, not {first.shape}, or is not finite"
        raise DataError(what, where=place, mend=_CPL)
    return vector


def write_word_vectors(path: Path, words: Sequence[str], vectors: FloatRows) -> None:
    """Write a table of word vectors (N, width) that `WordVectorEncoder` reads."""
    write_arrays(path, {"vectors": vectors}, {"words": json.dumps(list(words))})


class WordVectorEncoder(OneWordRows):
    """Words as rows of a table; a word that the table does not hold gets the project's own hashed row of that width.

    Args:
        path: a table written by `write_word_vectors`, or the folder that holds one.
        vocabulary: of the training sentences, for words outside the table.
        max_words: later words of a sentence are dropped.
    Raises:
        DataError: the file is missing or is no such table.
    """

    def __init__(self, path: str | Path, vocabulary: Vocabulary, max_words: int = 30) -> None:
        path = Path(path)
        path = path / WORD_VECTORS_FILE if path.is_dir() else path
        if not path.is_file():
            raise DataError(
                "there are no word vectors here",
                where=path,
                mend="import a release with a glove.pkl, or name another text encoder",
            )
        try:
            arrays, metadata = read_arrays(path)
            vectors, words = arrays["vectors"].astype(np.float32), json.loads(metadata["words"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"this is no table of word vectors ({error})", where=path, mend="import it again"
            ) from error
        self._rows: dict[str, FloatRows] = dict(zip(words, l2_normalize(vectors), strict=True))
        self._other_words = WordEncoder(vocabulary, int(vectors.shape[1]), max_words)
        digest = hashlib.sha256(json.dumps(words).encode() + vectors.tobytes()).hexdigest()
        name = f"vectors@{digest[:16]}x{max_words}+{self._other_words.name}"
        super().__init__(name, self._other_words.width, max_words)

    def row(self, word: str) -> FloatRows:
        """The table's row of a word; of another one the hashed row."""
        row = self._rows.get(word)
        if row is not None and row.any():  # <PAD> and the like are rows of zeros
            return row
        return self._other_words.row(word)
