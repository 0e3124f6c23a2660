"""Image–text models as video encoders: tiny random ones, against what transformers itself computes."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dciml.errors import ConfigError, DataError, ModelError
from dciml.features.base import Precision
from dciml.features.encoders.joined import encode_video
from dciml.features.encoders.text import same_space
from dciml.features.encoders.transformers_folder import IMAGE_TEXT_KINDS
from dciml.features.encoders.transformers_text import TransformersTextEncoder
from dciml.features.encoders.transformers_vision import ImageRows, ImageTextEncoder
from dciml.media import write_video

transformers = pytest.importorskip("transformers")

Models = Callable[[str], Path]
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 255, (24, 32, 3), dtype=np.uint8) for _ in range(5)]


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_rows_are_the_models_own_features(tiny_model: Models, kind: str) -> None:
    folder = tiny_model(kind)
    encoder = ImageTextEncoder(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        inputs = processor([Image.fromarray(picture) for picture in PICTURES], return_tensors="pt")
        expected = model.get_image_features(**inputs).pooler_output.numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = encoder.encode_pictures(PICTURES)
    assert rows.shape == (5, encoder.width)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert np.abs(rows - rows[0]).max() > 1e-3


@pytest.mark.parametrize("kind", IMAGE_TEXT_KINDS)
def test_pictures_and_sentences_share_a_space(tiny_model: Models, kind: str) -> None:
    text, image = TransformersTextEncoder(tiny_model(kind)), ImageTextEncoder(tiny_model(kind))
    assert image.encode_pictures(PICTURES).shape == (5, image.width)
    vector = text.encode(["a man opens the doorway"])[0].sentence
    assert vector is not None
    assert vector.shape == (image.width,)
    assert image.name.removeprefix("image:") == text.name.split("-layer")[0]


def test_rows_stand_on_the_grid_whatever_the_batch(tiny_model: Models, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    shades = [np.full((24, 32, 3), 20 * second + 10, dtype=np.uint8) for second in range(7)]
    shades[3][:, :16] = 255
    write_video(path, shades, 1, crf=1)
    encoder = ImageTextEncoder(tiny_model("clip"), rows_per_second=1.0)
    encoder.batch_frames = 3
    encoded = encode_video(path, encoder)
    assert encoded.rows.shape == (7, 10)
    assert encoder.picture_size(32, 24) == (21, 16)
    encoder.batch_frames = 100
    np.testing.assert_allclose(encode_video(path, encoder).rows, encoded.rows, atol=1e-5)
    twice = ImageTextEncoder(tiny_model("clip"), rows_per_second=0.5, frames_per_row=2)
    assert (twice.frames_per_second, twice.name) == (1.0, f"{encoder.name}-frames2")
    means = [encoded.rows[start : start + 2].mean(axis=0) for start in range(0, 7, 2)]
    expected = np.stack([mean / np.linalg.norm(mean) for mean in means])
    np.testing.assert_allclose(encode_video(path, twice).rows, expected, atol=1e-5)


def test_row_without_a_picture_repeats_the_one_before() -> None:
    rows = ImageRows(
        lambda pictures: np.stack([p[0, 0].astype(np.float32) for p in pictures]), (5, 3), 2.0, 2
    )
    for seconds, axis in ((0.0, 0), (0.5, 1), (2.5, 2), (2.6, 2)):  # the last two lie past the end
        rows.add(seconds, np.eye(3, dtype=np.uint8)[axis][None, None])
    assert rows.finish().argmax(axis=1).tolist() == [0, 1, 1, 1, 2]


def test_copies_for_processes_carry_no_weights(tiny_model: Models) -> None:
    encoder = ImageTextEncoder(tiny_model("siglip"))
    before = len(pickle.dumps(encoder))
    rows = encoder.encode_pictures(PICTURES)
    assert len(pickle.dumps(encoder)) == before < 10_000
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.name == encoder.name
    np.testing.assert_array_equal(copy.encode_pictures(PICTURES), rows)


def test_name_changes_with_weights_and_processor(tiny_model: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model("clip"), tmp_path / "tiny-clip")
    name = ImageTextEncoder(folder).name
    assert name == ImageTextEncoder(tiny_model("clip")).name
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("0.48145466", "0.5"))
    assert ImageTextEncoder(folder).name != name


def test_wrong_models_are_refused_before_any_video(tiny_model: Models, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'roberta' is not an image–text model"):
        ImageTextEncoder(tiny_model("roberta"))
    with pytest.raises(DataError, match="write video: instead of image:"):
        ImageTextEncoder(tiny_model("videomae"))
    with pytest.raises(DataError, match="hf download nobody/no-such-model"):
        ImageTextEncoder("nobody/no-such-model")
    with pytest.raises(DataError, match="check the path") as caught:
        ImageTextEncoder(tmp_path / "no" / "folder")
    assert "hf download" not in str(caught.value)
    for missing, message in (
        ("preprocessor_config.json", "no image processor can be loaded"),
        ("config.json", "no image–text model can be loaded"),
        ("model.safetensors", r"there are no weights \(model.safetensors\)"),
    ):
        folder = shutil.copytree(tiny_model("clip"), tmp_path / f"without-{missing}")
        (folder / missing).unlink()
        with pytest.raises(DataError, match=message):
            ImageTextEncoder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"a pickle such as pytorch_model\.bin is never loaded"):
        ImageTextEncoder(folder)


def test_weights_that_cannot_be_read_are_no_fault_of_a_video(tiny_model: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model("clip"), tmp_path / "damaged")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="no model can be loaded"):
        ImageTextEncoder(folder).encode_pictures(PICTURES)


def test_missing_package_is_named(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model("clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match=r"pip install 'dciml\[transformers\]'"):
        ImageTextEncoder(folder)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.999), ("int8", 0.98)])
def test_coarser_arithmetic_gives_nearly_the_same_rows(
    tiny_model: Models, kind: str, precision: Precision, least: float
) -> None:
    exact = ImageTextEncoder(tiny_model(kind))
    coarse = ImageTextEncoder(tiny_model(kind), precision=precision)
    assert coarse.name == f"{exact.name}-{precision}"
    rows, expected = coarse.encode_pictures(PICTURES), exact.encode_pictures(PICTURES)
    assert (rows * expected).sum(axis=1).min() > least
    assert np.abs(rows - expected).max() > 1e-6
    assert same_space(coarse.name, TransformersTextEncoder(tiny_model(kind)).name)


def test_int8_is_for_processors(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="int8 is for processors, not for cuda"):
        ImageTextEncoder(tiny_model("clip"), device="cuda", precision="int8")
