"""Files that are replaced as a whole, on a disk that is full or fails at any operation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_layer import MODES, Faults, room
from sweep import Call, sweep, sweep_room

from dciml.datasets.folder import DataFolder, write_data_folder
from dciml.errors import DataError
from dciml.features.encoded_text import encode_cached, read_arrays, write_arrays
from dciml.features.encoders.word_vectors import write_word_vectors
from dciml.features.encoders.words import WordEncoder
from dciml.features.extract import Failure
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.features.vocabulary import Vocabulary
from dciml.files import write_json, write_json_lines
from dciml.recipes.extract import ExtractOptions, extract, plan_extraction
from dciml.recipes.report import Submission
from dciml.search.calibration import Calibration, read_calibration
from dciml.training.checkpoint import load_tensors, save_tensors
from dciml.types import Query, Video


def calibration(scale: float) -> Calibration:
    return Calibration(scale, 4.0, 0.0, (1.0, 0.0), (0.0, 1.0), 9, 5, "f")


def submission(number: int) -> Submission:
    made = Submission.of_corpus(["v"])
    made.add_videos("q", ["v"], [number])
    return made


def weights(folder: Path) -> Any:
    tensors, metadata = load_tensors(folder / "w")
    return tensors["a"].tolist(), metadata


def lines(folder: Path) -> Any:
    return [json.loads(line) for line in (folder / "l").read_text().splitlines()]


FILES: dict[str, Call] = {
    "weights": Call(
        lambda f: save_tensors(f / "w", {"a": torch.zeros(2000)}, {"epoch": "1"}),
        lambda f: save_tensors(f / "w", {"a": torch.ones(2000)}, {"epoch": "2"}),
        weights,
    ),
    "calibration": Call(
        lambda f: calibration(1.0).write(f),
        lambda f: calibration(2.0).write(f),
        lambda f: read_calibration(f, "f"),
    ),
    "report": Call(
        lambda f: write_json(f / "r", {"a": list(range(2000))}),
        lambda f: write_json(f / "r", {"b": list(range(3000))}),
        lambda f: json.loads((f / "r").read_text()),
    ),
    "lines": Call(
        lambda f: write_json_lines(f / "l", [{"a": 1}] * 3),
        lambda f: write_json_lines(f / "l", [{"b": n} for n in range(600)]),
        lines,
    ),
    "submission": Call(
        lambda f: submission(1).write(f / "s", [Query("q", "v", "a cat")]),
        lambda f: submission(2).write(f / "s", [Query("q", "v", "a cat")]),
        lambda f: json.loads((f / "s").read_text()),
    ),
    "vocabulary": Call(
        lambda f: Vocabulary.build(["a cat sits"], 10).save(f / "v"),
        lambda f: Vocabulary.build(["the dog runs"], 10).save(f / "v"),
        lambda f: Vocabulary.load(f / "v").words,
    ),
}


@pytest.mark.parametrize("call", FILES.values(), ids=FILES)
def test_a_file_is_the_old_or_the_new_whatever_fails(tmp_path: Path, call: Call) -> None:
    assert sweep(call, tmp_path) > 4


@pytest.mark.parametrize("name", ["weights", "report", "lines"])
def test_a_file_is_the_old_one_when_the_system_refuses_to_grow(tmp_path: Path, name: str) -> None:
    sweep_room(FILES[name], tmp_path, 3000)


def import_data(folder: Path) -> object:
    def build_store(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("net", 4)) as writer:
            writer.append("v", np.ones((3, 4)), 9.0)

    def build_text(path: Path) -> None:
        write_word_vectors(path / "vectors.safetensors", ["a", "cat"], np.ones((2, 4), dtype=np.float32))

    queries = {"train": [Query("q", "v", "a cat")]}
    return write_data_folder(
        folder / "d", "d", queries, [Video("v", 9.0, "train")], build_store, build_text=build_text
    )


def imported(folder: Path) -> Any:
    if not (folder / "d").exists():
        return None
    data = DataFolder.open(folder / "d")
    assert data.store.verify() == []
    return data.queries("train"), data.store.fingerprint, sorted(file.name for file in data.path.rglob("*"))


@pytest.mark.parametrize("modes", [("full",), pytest.param(MODES, marks=pytest.mark.slow)])
def test_an_import_appears_whole_or_not_at_all_whatever_fails(tmp_path: Path, modes: Any) -> None:
    assert sweep(Call(lambda f: None, import_data, imported), tmp_path, modes) > 20


def test_cached_text_that_cannot_be_written_is_not_kept_and_no_failure(tmp_path: Path) -> None:
    sentences = [f"a dog number{n} runs" for n in range(40)]
    encoder = WordEncoder(Vocabulary.build(sentences), 16)
    whole = encode_cached(encoder, sentences, tmp_path / "whole")
    (file,) = (tmp_path / "whole").iterdir()
    for num_bytes in range(0, file.stat().st_size, 1000):
        with room(num_bytes):
            corpus = encode_cached(encoder, sentences, tmp_path / "tried")
        assert np.array_equal(corpus.get(3).static, whole.get(3).static)
        assert list((tmp_path / "tried").iterdir()) == []
    encode_cached(encoder, sentences, tmp_path / "tried")
    assert len(list((tmp_path / "tried").iterdir())) == 1


def test_arrays_refuse_damage_and_tell_of_a_full_disk(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(3), "c": np.empty((0, 2), dtype=np.int32)}
    with room(50), pytest.raises(OSError, match="File too large"):
        write_arrays(file, arrays, {})
    assert list(tmp_path.iterdir()) == []
    write_arrays(file, arrays, {"about": "x"})
    found, metadata = read_arrays(file)
    assert metadata == {"about": "x"}
    assert all(np.array_equal(found[key], value) for key, value in arrays.items())
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        read_arrays(file)


def test_what_extraction_says_is_not_hidden_by_the_list_of_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list cannot be written either where the disk is full; the first error is the one to tell."""
    (tmp_path / "v.mp4").write_bytes(b"no video")
    plan = plan_extraction([tmp_path / "v.mp4"], tmp_path / "store", ExtractOptions())

    def fail(*arguments: Any) -> None:
        arguments[5](Failure("v", tmp_path / "v.mp4", DataError("broken")))
        raise DataError("the store cannot be written")

    monkeypatch.setattr("dciml.recipes.extract.extract_videos", fail)
    faults = Faults(tmp_path, mode="full")
    with faults.in_force(), pytest.raises(DataError, match="the store cannot be written"):
        extract(plan, ExtractOptions(), on_failure=lambda _: faults.arm(0))
    assert faults.has_failed
