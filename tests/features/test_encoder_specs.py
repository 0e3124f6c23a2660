"""A store says what makes its rows, and that makes the encoder again, from wherever it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dciml.errors import ConfigError, DataError
from dciml.features.encoders.specs import create_encoder, encoder_of, lasting_specs, with_precision
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.sources.source import open_features, write_store
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest

Models = Callable[[str], Path]
RATE = 2.0


def test_specs_of_local_models_hold_from_anywhere(
    tiny_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tiny_model("clip")
    monkeypatch.chdir(clip.parent)
    typed = (f"image:{clip.name}:frames=2", f"text:transformers:{clip.name}", "builtin", "image:openai/clip")
    specs = lasting_specs(typed)
    assert specs == (f"image:{clip}:frames=2", f"text:transformers:{clip}", "builtin", "image:openai/clip")
    encoder = create_encoder(typed[:1], RATE, "cpu")
    manifest = StoreManifest(encoder.name, encoder.width, RATE, specs[:1])
    monkeypatch.chdir(tmp_path)
    assert encoder_of(manifest, "cpu").name == encoder.name


def test_specs_are_written_read_and_make_no_difference(tmp_path: Path) -> None:
    manifest = StoreManifest("net", 2, RATE, ("image:a", "builtin"))
    for name, its_manifest in (("old", StoreManifest("net", 2, RATE)), ("new", manifest)):
        with FeatureStoreWriter(tmp_path / name, its_manifest) as writer:
            writer.append("v", np.ones((3, 2)), 1.5)
    old, new = FeatureStore.open(tmp_path / "old"), FeatureStore.open(tmp_path / "new")
    assert "encoder_specs" not in json.loads((tmp_path / "old" / "manifest.json").read_text())
    assert (old.manifest.encoder_specs, new.manifest.encoder_specs) == ((), ("image:a", "builtin"))
    assert (old.manifest, old.fingerprint) == (new.manifest, new.fingerprint)
    FeatureStoreWriter(tmp_path / "new", StoreManifest("net", 2, RATE)).close()  # who does not know, keeps
    assert FeatureStore.open(tmp_path / "new").manifest.encoder_specs == ("image:a", "builtin")
    FeatureStoreWriter(tmp_path / "old", manifest).close()  # who knows, tells
    assert FeatureStore.open(tmp_path / "old").manifest.encoder_specs == ("image:a", "builtin")
    file = tmp_path / "old" / "manifest.json"
    file.write_text(file.read_text().replace('"builtin"', "3"))
    with pytest.raises(DataError, match=r"the manifest is damaged \(encoder_specs is"):
        FeatureStore.open(tmp_path / "old")


def test_an_import_of_a_store_keeps_its_specs_under_its_own_name(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("net", 2, RATE, ("image:a",))) as writer:
        writer.append("v", np.ones((3, 2)), 1.5)
    same = write_store(open_features(tmp_path / "s", "x"), tmp_path / "same", ["v"], {})
    other = write_store(open_features(tmp_path / "s", "x", "my-net"), tmp_path / "other", ["v"], {})
    assert (same.manifest.encoder_specs, other.manifest.encoder_specs) == (("image:a",), ())


def test_what_cannot_be_made_again_is_explained(tmp_path: Path) -> None:
    built_in = BuiltinVisualEncoder(RATE)
    silent = StoreManifest(built_in.name, built_in.width, RATE)
    assert encoder_of(silent, "cpu").name == built_in.name
    moved = StoreManifest("image:clip@1", 10, RATE, (f"image:{tmp_path / 'gone'}",))
    with pytest.raises(
        DataError, match=r"--encoder image:.*gone\) cannot be made here: .*with --encoder, where"
    ):
        encoder_of(moved, "cpu")
    with pytest.raises(
        DataError, match="the features are of 'image:clip@1', and --encoder builtin makes 'builtin-"
    ):
        encoder_of(moved, "cpu", ["builtin"])
    with pytest.raises(ConfigError, match="each encoder can be named once"):
        create_encoder(["builtin", "builtin"], RATE, "cpu")


def test_a_precision_is_part_of_the_spec_and_of_the_store(tiny_model: Models, tmp_path: Path) -> None:
    specs = (f"image:{tiny_model('clip')}",)
    (coarse,) = with_precision(specs, "bf16")
    assert with_precision([coarse], "bf16") == (coarse,)
    assert with_precision(specs, None) == specs
    encoder = create_encoder([coarse], RATE, "cpu")
    manifest = StoreManifest(encoder.name, encoder.width, RATE, (coarse,))
    assert encoder_of(manifest, "cpu").name == encoder.name
    FeatureStoreWriter(tmp_path / "s", manifest).close()
    exact = create_encoder(specs, RATE, "cpu")
    with pytest.raises(DataError, match="bf16"):
        FeatureStoreWriter(tmp_path / "s", StoreManifest(exact.name, exact.width, RATE, specs))
    with pytest.raises(ConfigError, match="its precision is bf16, not int8"):
        with_precision([coarse], "int8")
    with pytest.raises(ConfigError, match="no encoder here is one"):
        with_precision(["builtin", "text:words:8"], "int8")
    with pytest.raises(ConfigError, match="precision must be bf16 or int8, not 'int4'"):
        create_encoder([f"{specs[0]}:precision=int4"], RATE, "cpu")
