"""Vision models of `transformers` as video encoders: CLIP, SigLIP and kin by picture; VideoMAE and kin by clip."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dciml.errors import ConfigError, DataError, ModelError
from dciml.features.base import FloatRows, Precision, num_rows
from dciml.features.encoders.transformers_folder import (
    IMAGE_TEXT_KINDS,
    check_device,
    folder_digest,
    load_config,
    load_weights,
    loading,
    local_folder,
    model_label,
    require_transformers,
)
from dciml.features.pooling import l2_normalize
from dciml.files import read_json
from dciml.media import RGBFrame, VideoInfo

if TYPE_CHECKING:
    from torch import Tensor

_OVERSAMPLING = (
    2  # pictures are requested at this multiple of the model's size; its own processor does the rest
)
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
        precision: instead of that. `bf16` pays where the processor computes bfloat16; `int8` is for processors alone:
            weights of linear layers are rounded once, what they meet by its range in each batch.
    Raises:
        ConfigError: the device is not here, or cannot compute in this precision.
    """

    folder: Path
    device: str
    unused_parts: tuple[str, ...] = ()
    precision: Precision | None = None
    _model: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.precision == "int8" and self.device != "cpu":
            raise ConfigError(f"int8 is for processors, not for {self.device}; leave it out, or use bf16")

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
        if self.precision == "bf16":
            dtype = torch.bfloat16
        try:
            with loading(self.folder, "model"):
                model = load_weights(require_transformers().AutoModel, self.folder, dtype=dtype)
                for name in self.unused_parts:
                    if hasattr(model, name):
                        delattr(model, name)
                return _in_int8(model) if self.precision == "int8" else model.to(self.device)
        except DataError as error:
            raise ModelError(str(error)) from error


def _in_int8(model: Any) -> Any:
    import torch

    with warnings.catch_warnings():  # torch names packages of its own as the future of this
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]


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


_BATCH_ON_CPU, _BATCH_ON_GPU = 8, 64


class ImageTextEncoder:
    """A `FrameEncoder`: a row is the model's feature of the picture at its start, of length 1.

    Rows and the sentence vectors of the same model's text side (`transformers:` the same name) share a space.

    Args:
        name_or_folder: a local folder, or a hub name that is in the local cache.
        rows_per_second: > 0.
        frames_per_row: pictures a row, evenly spaced; the row is the mean of their features, scaled to length 1.
        device: where the model runs; in half precision on a GPU.
        precision: of its arithmetic, see `LazyModel`; rows of another precision are those of another encoder.
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
        precision: Precision | None = None,
    ) -> None:
        if not rows_per_second > 0 or frames_per_row < 1:
            raise ValueError(f"rates must be positive, not {rows_per_second} and {frames_per_row}")
        folder = local_folder(name_or_folder)
        config = load_config(folder, "image–text model")
        self.width = _width(config, folder)
        self.rows_per_second, self.frames_per_second = rows_per_second, rows_per_second * frames_per_row
        several = f"-frames{frames_per_row}" if frames_per_row > 1 else ""
        self.name = f"image:{model_label(name_or_folder, folder)}@{folder_digest(folder)}{several}{_suffix(precision)}"
        self._processor = PictureProcessor(folder)
        self._model = LazyModel(folder, device, unused_parts=("text_model",), precision=precision)
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


def _suffix(precision: Precision | None) -> str:
    return "" if precision is None else f"-{precision}"


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


WINDOW_SECONDS, STRIDE_SECONDS = 2.0, 1.0
_BATCH_ON_CPU, _BATCH_ON_GPU = 2, 16
_FIRST_TOKEN_KINDS = ("timesformer", "vivit")
_MEAN_KINDS = ("videomae", "vjepa2")
VIDEO_KINDS = ("xclip", *_FIRST_TOKEN_KINDS, *_MEAN_KINDS)


@dataclass(frozen=True)
class ClipTiming:
    """Which pictures make up the clips of a video. Clip k looks at `window_seconds` around the middle of its stride.

    The first and the last picture are repeated where a clip reaches past the ends of the video.

    >>> timing = ClipTiming(window_seconds=2.0, stride_seconds=1.0, num_frames=4)
    >>> timing.frames_per_second, timing.num_clips(3.5), timing.first_frame(0), timing.first_frame(2)
    (2.0, 4, -1, 3)
    """

    window_seconds: float
    stride_seconds: float
    num_frames: int

    def __post_init__(self) -> None:
        if not (self.window_seconds > 0 and self.stride_seconds > 0 and self.num_frames > 0):
            raise ValueError(f"window, stride and frames must be positive, not {self}")

    @property
    def frames_per_second(self) -> float:
        """How many pictures a second are looked at."""
        return self.num_frames / self.window_seconds

    def num_clips(self, duration_seconds: float) -> int:
        """How many clips a video has, at least 1."""
        return num_rows(duration_seconds, 1 / self.stride_seconds)

    def first_frame(self, clip: int) -> int:
        """Index of a clip's first picture among those sampled; negative before the start of the video."""
        start_seconds = (clip + 0.5) * self.stride_seconds - self.window_seconds / 2
        return int(np.floor(start_seconds * self.frames_per_second + 0.5))


class ClipEncoder:
    """A `FrameEncoder`: a clip's feature stands for its stride of time, a row is the mean of what it covers.

    Features are X-CLIP's projection into its space of sentences, the first token of TimeSformer and ViViT, and the
    mean of the tokens of VideoMAE and V-JEPA 2. Clips and rows have length 1.

    Args:
        name_or_folder: a local folder, or a hub name that is in the local cache.
        rows_per_second: > 0.
        window_seconds: how much of the video a clip looks at; the model's number of frames is spread over it.
        stride_seconds: from clip to clip.
        device: where the model runs; in half precision on a GPU.
        precision: of its arithmetic, see `LazyModel`; rows of another precision are those of another encoder.
    Raises:
        ConfigError: the device is not here.
        DataError: transformers is not installed, or the model is missing, incomplete or of another kind.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        rows_per_second: float = 2.0,
        window_seconds: float = WINDOW_SECONDS,
        stride_seconds: float = STRIDE_SECONDS,
        device: str = "cpu",
        precision: Precision | None = None,
    ) -> None:
        if not rows_per_second > 0:
            raise ValueError(f"rows_per_second must be positive, not {rows_per_second}")
        folder = local_folder(name_or_folder)
        config = load_config(folder, "video model")
        self._kind, self.width, frames = _describe(config, folder)
        self.timing = ClipTiming(window_seconds, stride_seconds, frames)
        self.rows_per_second, self.frames_per_second = rows_per_second, self.timing.frames_per_second
        label = f"{model_label(name_or_folder, folder)}@{folder_digest(folder)}"
        self.name = f"video:{label}-window{window_seconds:g}-stride{stride_seconds:g}{_suffix(precision)}"
        self._processor = PictureProcessor(folder)
        self._model = LazyModel(folder, device, ("text_model", "prompts_generator"), precision)
        self.batch_clips = _BATCH_ON_GPU if device.startswith("cuda") else _BATCH_ON_CPU

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Twice the model's own size; it does the last of the scaling itself."""
        return self._processor.picture_size(width, height)

    def begin(self, info: VideoInfo) -> ClipRows:
        """Start a video."""
        return ClipRows(self, info.duration_seconds)

    def prepare(self, picture: RGBFrame) -> Tensor:
        """A picture as the model reads it, (3, height, width)."""
        return self._processor([picture])["pixel_values"][0]

    def encode_clips(self, clips: Tensor) -> FloatRows:
        """Prepared clips (n, frames, 3, height, width) → features (n, width) of length 1.

        Raises:
            ModelError: the model cannot be loaded, or gives something else than its settings say.
        """
        import torch

        model = self._model.get()
        name = "pixel_values_videos" if self._kind == "vjepa2" else "pixel_values"
        with torch.inference_mode():
            features = _run(self._kind, model, self._model.inputs({name: clips}))
        rows: FloatRows = l2_normalize(features.float().cpu().numpy())
        if rows.shape != (len(clips), self.width):
            raise ModelError(f"{self.name} gives features of the shape {rows.shape}, not {self.width} a clip")
        return rows


class ClipRows:
    """Makes the rows of one video; holds the prepared pictures of a clip and a batch of clips."""

    def __init__(self, encoder: ClipEncoder, duration_seconds: float) -> None:
        self._encoder, self._timing = encoder, encoder.timing
        self._num_clips = self._timing.num_clips(duration_seconds)
        self._num_rows = num_rows(duration_seconds, encoder.rows_per_second)
        self._held: dict[int, Tensor] = {}  # prepared pictures by index, those that a clip still needs
        self._last = -1
        self._last_picture: RGBFrame | None = None
        self._next_clip = 0
        self._last_clip: list[Tensor] = []
        self._repeats: list[int] = []  # how many clips in a row have each of the features
        self._batch: list[Tensor] = []
        self._features: list[FloatRows] = []

    def add(self, seconds: float, picture: RGBFrame) -> None:
        """Take a picture; they come evenly spaced."""
        del seconds
        stands = picture is self._last_picture
        prepared = self._held[self._last] if stands else self._encoder.prepare(picture)
        self._last += 1
        self._last_picture, self._held[self._last] = picture, prepared
        while (
            self._next_clip < self._num_clips
            and self._timing.first_frame(self._next_clip) + self._timing.num_frames - 1 <= self._last
        ):
            self._take_clip()
        oldest = min(max(self._timing.first_frame(self._next_clip), 0), self._last)
        for index in [index for index in self._held if index < oldest]:
            del self._held[index]

    def finish(self) -> FloatRows:
        """The rows, (T, width)."""
        while self._next_clip < self._num_clips:
            self._take_clip()
        self._flush()
        clips = np.concatenate(self._features).repeat(self._repeats, axis=0)
        means = time_means(clips, self._timing.stride_seconds, self._num_rows, self._encoder.rows_per_second)
        return l2_normalize(means)

    def _take_clip(self) -> None:
        import torch

        first = self._timing.first_frame(self._next_clip)
        wanted = (min(max(first + place, 0), self._last) for place in range(self._timing.num_frames))
        clip = [self._held[index] for index in wanted]
        self._next_clip += 1
        if self._last_clip and all(one is other for one, other in zip(clip, self._last_clip, strict=True)):
            self._repeats[-1] += 1  # a picture stands
            return
        self._last_clip = clip
        self._repeats.append(1)
        self._batch.append(torch.stack(clip))
        if len(self._batch) == self._encoder.batch_clips:
            self._flush()

    def _flush(self) -> None:
        import torch

        if self._batch:
            self._features.append(self._encoder.encode_clips(torch.stack(self._batch)))
            self._batch = []


def time_means(values: FloatRows, step_seconds: float, count: int, rows_per_second: float) -> FloatRows:
    """Means over the rows of a grid, of values that each hold for one step of time: (n, D) → (count, D).

    The last value goes on for ever.

    >>> time_means(np.array([[0.0], [4.0]], dtype=np.float32), 1.0, 3, 1.5)[:, 0].round(3).tolist()
    [0.0, 2.0, 4.0]
    """
    integral = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    edges = np.arange(count + 1) / rows_per_second / step_seconds  # in steps
    whole = np.minimum(edges.astype(np.int64), len(values) - 1)
    until_edges = integral[whole] + (edges - whole)[:, None] * values[whole]
    means: FloatRows = (np.diff(until_edges, axis=0) * (rows_per_second * step_seconds)).astype(np.float32)
    return means


def _run(kind: str, model: Any, inputs: dict[str, Any]) -> Any:
    if kind == "xclip":
        return model.get_video_features(**inputs).pooler_output
    if kind == "vjepa2":
        return model(**inputs, skip_predictor=True).last_hidden_state.mean(dim=1)
    states = model(**inputs).last_hidden_state
    return states[:, 0] if kind in _FIRST_TOKEN_KINDS else states.mean(dim=1)


def _describe(config: Any, folder: Path) -> tuple[str, int, int]:
    """Kind, width of the features, frames a clip."""
    kind = str(config.model_type)
    if kind not in VIDEO_KINDS:
        raise DataError(
            f"a model of the kind {kind!r} is not a video model that is supported",
            where=folder,
            mend=f"use one of {', '.join(VIDEO_KINDS)}; for image–text models write image: instead of video:",
        )
    if kind == "xclip":
        return kind, int(config.projection_dim), int(config.vision_config.num_frames)
    frames = config.frames_per_clip if kind == "vjepa2" else config.num_frames
    return kind, int(config.hidden_size), int(frames)
