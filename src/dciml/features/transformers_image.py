"""Image–text models of `transformers` as video encoders: CLIP, SigLIP, SigLIP 2 and kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dciml.errors import DataError, ModelError
from dciml.features.base import FloatRows, num_rows
from dciml.features.pooling import l2_normalize
from dciml.features.transformers_folder import (
    IMAGE_TEXT_KINDS,
    folder_digest,
    load_config,
    local_folder,
    model_label,
)
from dciml.features.transformers_pictures import LazyModel, PictureProcessor
from dciml.media import RGBFrame, VideoInfo

_BATCH_ON_CPU, _BATCH_ON_GPU = 8, 64


class ImageTextEncoder:
    """A `FrameEncoder`: a row is the model's feature of the picture at its start, of length 1.

    Rows and the sentence vectors of the same model's text side (`transformers:` the same name) share a space.

    Args:
        name_or_folder: a local folder, or a hub name that is in the local cache.
        rows_per_second: > 0.
        frames_per_row: pictures a row, evenly spaced; the row is the mean of their features, scaled to length 1.
        device: where the model runs; in half precision on a GPU.
    Raises:
        ConfigError: the device is not here.
        DataError: transformers is not installed, or the model is missing, incomplete or of another kind.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        rows_per_second: float = 2.0,
        frames_per_row: int = 1,
        device: str = "cpu",
    ) -> None:
        if not rows_per_second > 0 or frames_per_row < 1:
            raise ValueError(f"rates must be positive, not {rows_per_second} and {frames_per_row}")
        folder = local_folder(name_or_folder)
        config = load_config(folder, "image–text model")
        self.width = _width(config, folder)
        self.rows_per_second, self.frames_per_second = rows_per_second, rows_per_second * frames_per_row
        several = f"-frames{frames_per_row}" if frames_per_row > 1 else ""
        self.name = f"image:{model_label(name_or_folder, folder)}@{folder_digest(folder)}{several}"
        self._processor = PictureProcessor(folder)
        self._model = LazyModel(folder, device, unused_parts=("text_model",))
        self.batch_frames = _BATCH_ON_GPU if device.startswith("cuda") else _BATCH_ON_CPU

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Twice the model's own size; it does the last of the scaling itself."""
        return self._processor.picture_size(width, height)

    def begin(self, info: VideoInfo) -> ImageRows:
        """Start a video."""
        count = num_rows(info.duration_seconds, self.rows_per_second)
        return ImageRows(self.encode_pictures, (count, self.width), self.rows_per_second, self.batch_frames)

    def encode_pictures(self, pictures: Sequence[RGBFrame]) -> FloatRows:
        """Features (n, width) of pictures, of length 1.

        Raises:
            ModelError: the model cannot be loaded, or gives something else than its settings say.
        """
        import torch

        model = self._model.get()
        with torch.inference_mode():
            inputs = self._model.inputs(self._processor(pictures))
            features = model.get_image_features(**inputs).pooler_output
        rows: FloatRows = l2_normalize(features.float().cpu().numpy())
        if rows.shape != (len(pictures), self.width):
            raise ModelError(
                f"{self.name} gives features of the shape {rows.shape}, not {self.width} a picture"
            )
        return rows


class ImageRows:
    """Means of the features of the pictures in each row, of length 1; holds one batch of pictures.

    Args:
        encode: pictures → features, (n, width).
        shape: (T, width).
        rows_per_second: of the grid.
        batch: pictures to encode together.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[RGBFrame]], FloatRows],
        shape: tuple[int, int],
        rows_per_second: float,
        batch: int,
    ) -> None:
        self._encode, self._rate, self._batch = encode, rows_per_second, batch
        self._sums = np.zeros(shape, dtype=np.float32)
        self._counts = np.zeros(shape[0], dtype=np.int64)
        self._pictures: list[RGBFrame] = []
        self._uses: list[tuple[int, int]] = []  # of a row and of a picture that waits

    def add(self, seconds: float, picture: RGBFrame) -> None:
        """Take a picture; one that is the same object as the one before is not encoded again."""
        place = min(int(seconds * self._rate + 1e-6), len(self._sums) - 1)
        if not (self._pictures and picture is self._pictures[-1]):
            if len(self._pictures) == self._batch:
                self._flush()
            self._pictures.append(picture)
        self._uses.append((place, len(self._pictures) - 1))

    def finish(self) -> FloatRows:
        """The rows; one without a picture repeats the row before it."""
        self._flush()
        places = np.where(self._counts > 0, np.arange(len(self._counts)), 0)
        return l2_normalize(self._sums[np.maximum.accumulate(places)])

    def _flush(self) -> None:
        if self._pictures:
            places, indices = np.array(self._uses).T
            features = self._encode(self._pictures)
            np.add.at(self._sums, places, features[indices])
            np.add.at(self._counts, places, 1)
            self._pictures, self._uses = [], []


def _width(config: Any, folder: Path) -> int:
    kind = config.model_type
    if kind not in IMAGE_TEXT_KINDS:
        raise DataError(
            f"a model of the kind {kind!r} is not an image–text model that is supported",
            where=folder,
            mend=f"use one of {', '.join(IMAGE_TEXT_KINDS)}; for models of clips write video: instead of image:",
        )
    if kind.startswith("siglip"):
        return int(config.vision_config.hidden_size)
    return int(config.projection_dim)
