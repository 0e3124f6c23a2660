"""A video that is added is encoded as the features of the index say that they were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.encoders.specs import create_encoder
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.media import write_video
from dciml.service.encode import EncodeOrder, encode

SPECS = ("builtin", "text:words:8")


@pytest.fixture
def order(tmp_path: Path) -> EncodeOrder:
    """A video to add to a store beside one that holds two kinds of rows, one a second."""
    file = tmp_path / "v.mp4"
    write_video(file, np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8), 8)
    made = create_encoder(SPECS, 1.0, "cpu")
    FeatureStoreWriter(tmp_path / "like", StoreManifest(made.name, made.width, 1.0, SPECS)).close()
    return EncodeOrder(
        str(file), "v", str(tmp_path / "added"), "/videos/v.mp4", str(tmp_path / "like"), [], "cpu"
    )


def test_no_encoder_need_be_named(order: EncodeOrder) -> None:
    told: list[dict[str, object]] = []
    encode(order, told.append)
    added = FeatureStore.open(order.store)
    assert added.manifest == FeatureStore.open(order.like).manifest
    assert added.manifest.encoder_specs == SPECS
    assert (added.num_rows("v"), added.source("v")) == (2, "/videos/v.mp4")
    assert told


def test_another_encoder_is_refused_with_the_mend(order: EncodeOrder) -> None:
    order.encoders.append("builtin")
    with pytest.raises(
        DataError, match=r"the features are of .*, and --encoder builtin makes .*, with --encoder,"
    ):
        encode(order, lambda _: None)
