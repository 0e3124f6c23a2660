"""Video models of `transformers` as video encoders, which look at clips of frames: VideoMAE, X-CLIP, TimeSformer, …"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dciml.errors import DataError, ModelError
from dciml.features.base import FloatRows, num_rows
from dciml.features.pooling import l2_normalize
from dciml.features.transformers_folder import folder_digest, load_config, local_folder, model_label
from dciml.features.transformers_pictures import LazyModel, PictureProcessor
from dciml.media import RGBFrame, VideoInfo

if TYPE_CHECKING:
    from torch import Tensor

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
    ) -> None:
        if not rows_per_second > 0:
            raise ValueError(f"rows_per_second must be positive, not {rows_per_second}")
        folder = local_folder(name_or_folder)
        config = load_config(folder, "video model")
        self._kind, self.width, frames = _describe(config, folder)
        self.timing = ClipTiming(window_seconds, stride_seconds, frames)
        self.rows_per_second, self.frames_per_second = rows_per_second, self.timing.frames_per_second
        label = f"{model_label(name_or_folder, folder)}@{folder_digest(folder)}"
        self.name = f"video:{label}-window{window_seconds:g}-stride{stride_seconds:g}"
        self._processor = PictureProcessor(folder)
        self._model = LazyModel(folder, device, unused_parts=("text_model", "prompts_generator"))
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
