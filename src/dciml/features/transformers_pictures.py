"""What encoders of pictures and of clips share: the model's own image processor, its device, its number format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dciml.errors import DataError, ModelError
from dciml.features.devices import check_device
from dciml.features.transformers_folder import load_weights, loading, require_transformers
from dciml.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from dciml.media import RGBFrame

_OVERSAMPLING = 2  # pictures are asked for at so many times the model's size; its own processor does the rest
_VIDEO_PROCESSOR_FILE = "video_preprocessor_config.json"
_VIDEO_PROCESSORS = ("VideoMAEVideoProcessor", "TimesformerVideoProcessor", "VJEPA2VideoProcessor")


class PictureProcessor:
    """Pictures → tensors, by the image processor of a model's folder in its PIL form (torchvision is not needed).

    Raises:
        DataError: the folder has none, or one that is not known.
    """

    def __init__(self, folder: Path) -> None:
        self._processor = _load_processor(folder)
        self._side = _side(self._processor)

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Twice the model's size along the shorter side, or the video's own size where that is smaller."""
        scale = min(1.0, _OVERSAMPLING * self._side / min(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def __call__(self, pictures: Sequence[RGBFrame]) -> dict[str, Tensor]:
        """The model's inputs, one entry a picture along the first axis."""
        inputs = dict(self._processor(list(pictures), input_data_format="channels_last", return_tensors="pt"))
        pixels = inputs["pixel_values"]
        # Processors for clips take the pictures for one clip.
        inputs["pixel_values"] = pixels.flatten(0, 1) if pixels.ndim == 5 else pixels
        return inputs


@dataclass
class LazyModel:
    """A model that is loaded when it is first used, in the process that uses it; copies to processes are empty.

    Attributes:
        device: where it runs. On a GPU in half precision (bfloat16 where it can, else float16), elsewhere in float32.
        unused_parts: of the model, which would only take memory.
    Raises:
        ConfigError: the device is not here.
    """

    folder: Path
    device: str
    unused_parts: tuple[str, ...] = ()
    _model: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_device(self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def get(self) -> Any:
        """The model.

        Raises:
            ModelError: it cannot be loaded. (Not a `DataError`: no video is to blame.)
        """
        if self._model is None:
            self._model = self._load()
        return self._model

    def inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors on the model's device and in its number format."""
        dtype = self.get().dtype
        return {
            name: tensor.to(self.device, dtype) if tensor.is_floating_point() else tensor.to(self.device)
            for name, tensor in inputs.items()
        }

    def _load(self) -> Any:
        import torch

        dtype = torch.float32
        if torch.device(self.device).type == "cuda":
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        try:
            with loading(self.folder, "model"):
                model = load_weights(require_transformers().AutoModel, self.folder, dtype=dtype)
                for name in self.unused_parts:
                    if hasattr(model, name):
                        delattr(model, name)
                return model.to(self.device)
        except DataError as error:
            raise ModelError(str(error)) from error


def _load_processor(folder: Path) -> Any:
    transformers = require_transformers()
    settings_file = folder / _VIDEO_PROCESSOR_FILE
    if settings_file.is_file() and not (folder / "preprocessor_config.json").is_file():
        # Video processors need torchvision; these three scale, crop and normalise just as VideoMAE's for pictures.
        settings = read_json(settings_file)
        kind = settings.pop("video_processor_type", None)
        if kind not in _VIDEO_PROCESSORS:
            raise DataError(
                f"the video processor {kind!r} is not supported",
                where=settings_file,
                mend=f"use a model with one of {', '.join(_VIDEO_PROCESSORS)}, or with a preprocessor_config.json",
            )
        with loading(folder, "image processor"):
            return transformers.VideoMAEImageProcessorPil(**settings)
    with loading(folder, "image processor"):
        return transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )


def _side(processor: Any) -> int:
    """The largest side that the processor scales pictures to."""
    size = dict(getattr(processor, "size", None) or {})
    sides = [value for value in size.values() if isinstance(value, int)]
    if sides:
        return max(sides)
    patches = getattr(processor, "max_num_patches", None)  # SigLIP 2 keeps the aspect and limits the area
    return int(processor.patch_size * patches**0.5) if patches else 224
