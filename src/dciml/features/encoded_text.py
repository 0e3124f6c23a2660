"""Many sentences encoded once and kept compactly, in memory for training and on disk for the next run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dciml.features.base import EncodedSentence, FloatRows, TextEncoder
from dciml.files import atomic_path

CHECKSUM = "crc32"  # in the metadata: over everything else in the file
PROGRESS_SENTENCES = 1024  # encoded between two reports of how many are done
_SYSTEM_ERROR = re.compile(r"os error (\d+)")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a file. Raises OSError, also where safetensors has an error of its own for a full disk."""
    plain = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    sealed = dict(metadata) | {CHECKSUM: str(_checksum(plain, metadata))}
    with atomic_path(path) as temporary:
        before = set(path.parent.glob(".tmp??????"))
        try:
            save_file(plain, temporary, sealed)
        except SafetensorError as error:
            for left in set(path.parent.glob(".tmp??????")) - before:
                left.unlink(missing_ok=True)
            found = _SYSTEM_ERROR.search(str(error))
            code = int(found[1]) if found else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a file; one of before has no checksum, and is taken as it is.

    Raises:
        OSError: it cannot be read. SafetensorError, ValueError: it is damaged.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")  # a pipe would never end
    with safe_open(path, framework="np") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    known = metadata.pop(CHECKSUM, None)
    if known is not None and known != str(_checksum(arrays, metadata)):
        raise ValueError("it does not match its checksum")
    return arrays, metadata


def _checksum(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> int:
    """CRC-32 over names, types, shapes and bytes of all arrays, and the metadata."""
    crc = zlib.crc32(json.dumps(dict(metadata), sort_keys=True).encode())
    for key, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{key} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


@dataclass(frozen=True)
class EncodedCorpus:
    """The features of N sentences with W words in all, of which U are distinct.

    Attributes:
        encoder_name: of the encoder that made them.
        distinct_words: (U), in order of first appearance.
        word_index: (W,), rows of `distinct_words` and `static_table`.
        offsets: (N + 1,): the words of sentence i are `offsets[i]:offsets[i + 1]`.
        static_table: (U, static_width) float32, one row a distinct word.
        contextual: (W, width) float16; None where the encoder's contextual rows are its static ones.
        sentences: (N, sentence_width) float32; None where the encoder has no sentence vector.
    """

    encoder_name: str
    distinct_words: tuple[str, ...]
    word_index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    static_table: FloatRows
    contextual: NDArray[np.float16] | None
    sentences: FloatRows | None

    @classmethod
    def build(
        cls,
        encoder: TextEncoder,
        sentences: Sequence[str],
        chunk: int = 4096,
        on_progress: Callable[[int], None] | None = None,
    ) -> EncodedCorpus:
        """Encode the sentences, in order.

        Args:
            encoder: any text encoder.
            sentences: at least one.
            chunk: sentences held at full size at a time.
            on_progress: told how many are done.
        Raises:
            DataError: a sentence has no word.
            ValueError: there is no sentence.
        """
        if not sentences:
            raise ValueError("there is no sentence to encode")
        collected = _Collector()
        for start in range(0, len(sentences), chunk):
            for encoded in encoder.encode(sentences[start : start + chunk]):
                collected.add(encoded)
            if on_progress is not None:
                on_progress(min(start + chunk, len(sentences)))
        return cls(
            encoder_name=encoder.name,
            distinct_words=tuple(collected.rows),
            word_index=np.concatenate(collected.index),
            offsets=np.cumsum([0, *map(len, collected.index)], dtype=np.int64),
            static_table=np.stack(collected.static),
            contextual=np.concatenate(collected.contextual) if collected.contextual else None,
            sentences=np.stack(collected.sentences) if collected.sentences else None,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """Width of the contextual rows."""
        return int((self.static_table if self.contextual is None else self.contextual).shape[1])

    @property
    def static_width(self) -> int:
        """Width of the static rows."""
        return int(self.static_table.shape[1])

    def take(self, indices: Sequence[int]) -> EncodedCorpus:
        """Some of the sentences, in the given order."""
        spans = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices]
        rows = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
        return replace(
            self,
            word_index=self.word_index[rows],
            offsets=np.cumsum([0, *map(len, spans)], dtype=np.int64),
            contextual=None if self.contextual is None else self.contextual[rows],
            sentences=None if self.sentences is None else self.sentences[list(indices)],
        )

    def get(self, index: int) -> EncodedSentence:
        """Sentence `index`; contextual rows are rounded to half precision (an error of at most 0.0005)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        words = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        word_index = self.word_index[words]
        static: FloatRows = self.static_table[word_index]
        return EncodedSentence(
            words=tuple(self.distinct_words[row] for row in word_index),
            contextual=static if self.contextual is None else self.contextual[words].astype(np.float32),
            static=static,
            sentence=None if self.sentences is None else self.sentences[index],
        )


class _Collector:
    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.static: list[FloatRows] = []
        self.index: list[NDArray[np.int64]] = []
        self.contextual: list[NDArray[np.float16]] = []
        self.sentences: list[FloatRows] = []

    def add(self, encoded: EncodedSentence) -> None:
        for word, row in zip(encoded.words, encoded.static, strict=True):
            if word not in self.rows:
                self.rows[word] = len(self.static)
                self.static.append(row.copy())  # not a view that keeps the whole sentence alive
        self.index.append(np.array([self.rows[word] for word in encoded.words], dtype=np.int64))
        if encoded.contextual is not encoded.static:
            self.contextual.append(encoded.contextual.astype(np.float16))
        if encoded.sentence is not None:
            self.sentences.append(encoded.sentence.copy())


def encode_cached(
    encoder: TextEncoder,
    sentences: Sequence[str],
    folder: Path,
    on_progress: Callable[[int], None] | None = None,
) -> EncodedCorpus:
    """Encode the sentences, or read what an earlier call with the same encoder and sentences left in `folder`.

    A damaged file is made anew; where `folder` cannot be written, nothing is kept.
    """
    digest = hashlib.sha256("\0".join((encoder.name, *sentences)).encode()).hexdigest()[:24]
    file = folder / f"{digest}.safetensors"
    if file.exists():
        try:
            return _read(file)
        except (OSError, SafetensorError, KeyError, ValueError):
            pass
    corpus = EncodedCorpus.build(encoder, sentences, PROGRESS_SENTENCES, on_progress)
    try:
        _write(corpus, file)
    except OSError:
        return corpus
    return corpus


def _write(corpus: EncodedCorpus, file: Path) -> None:
    arrays: dict[str, NDArray[np.generic]] = {
        "word_index": corpus.word_index,
        "offsets": corpus.offsets,
        "static_table": corpus.static_table,
    }
    if corpus.contextual is not None:
        arrays["contextual"] = corpus.contextual
    if corpus.sentences is not None:
        arrays["sentences"] = corpus.sentences
    write_arrays(file, arrays, {"encoder": corpus.encoder_name, "words": json.dumps(corpus.distinct_words)})


def _read(file: Path) -> EncodedCorpus:
    arrays, metadata = read_arrays(file)
    return EncodedCorpus(
        encoder_name=metadata["encoder"],
        distinct_words=tuple(json.loads(metadata["words"])),
        word_index=arrays["word_index"],
        offsets=arrays["offsets"],
        static_table=arrays["static_table"],
        contextual=arrays.get("contextual"),
        sentences=arrays.get("sentences"),
    )
