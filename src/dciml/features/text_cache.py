"""Encoded sentences kept on disk, so that the next run on the same data need not encode them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from dciml.features.array_file import read_arrays, write_arrays
from dciml.features.base import TextEncoder
from dciml.features.encoded_text import EncodedCorpus


def encode_cached(encoder: TextEncoder, sentences: Sequence[str], folder: Path) -> EncodedCorpus:
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
    corpus = EncodedCorpus.build(encoder, sentences)
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
