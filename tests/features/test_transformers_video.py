"""Models of clips as video encoders: tiny random ones, and the clips of a video listed one by one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.base import FloatRows
from dciml.features.encoders.joined import encode_video
from dciml.features.encoders.transformers_text import TransformersTextEncoder
from dciml.features.encoders.transformers_vision import ClipEncoder, ClipTiming, time_means
from dciml.media import VideoInfo, iterate_frames, write_video

transformers = pytest.importorskip("transformers")

Models = Callable[[str], Path]
KINDS = ("xclip", "videomae", "timesformer", "vivit", "vjepa2")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "v.mp4"
    rng = np.random.default_rng(0)
    write_video(path, [rng.integers(0, 255, (24, 32, 3), dtype=np.uint8) for _ in range(21)], 4, crf=1)
    return path


def features_of(kind: str, folder: Path, clip: torch.Tensor) -> FloatRows:
    """What the model itself says of one clip, (frames, 3, height, width)."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if kind == "xclip":
            vector = model.get_video_features(pixel_values=clip[None]).pooler_output[0]
        elif kind == "vjepa2":
            vector = model.get_vision_features(clip[None])[0].mean(0)
        else:
            states = model(pixel_values=clip[None]).last_hidden_state[0]
            vector = states[0] if kind in ("timesformer", "vivit") else states.mean(0)
    return (vector / vector.norm()).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_features_of_the_clips_around_them(tiny_model: Models, video: Path, kind: str) -> None:
    encoder = ClipEncoder(tiny_model(kind), rows_per_second=1.0, window_seconds=2.0, stride_seconds=1.0)
    rows = encode_video(video, encoder).rows  # 5.25 s
    assert rows.shape == (6, encoder.width)
    size = encoder.picture_size(32, 24)
    pictures = [encoder.prepare(picture) for _, picture in iterate_frames(video, 2.0, size)]
    for row, middle_seconds in enumerate((0.5, 1.5, 2.5, 3.5, 4.5, 5.5)):
        times = middle_seconds - 1.0 + np.array([0.0, 0.5, 1.0, 1.5])
        indices = np.clip(np.round(times * 2), 0, len(pictures) - 1).astype(int)
        expected = features_of(kind, tiny_model(kind), torch.stack([pictures[index] for index in indices]))
        np.testing.assert_allclose(rows[row], expected, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(1.0, 0.25), (3.0, 2.0), (0.5, 1.5), (20.0, 10.0)])
def test_any_window_and_stride_give_rows_on_the_grid(
    tiny_model: Models, video: Path, window: float, stride: float
) -> None:
    encoder = ClipEncoder(tiny_model("videomae"), 2.0, window, stride)
    rows = encode_video(video, encoder).rows
    assert rows.shape == (11, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.name.endswith(f"-window{window:g}-stride{stride:g}")


def test_memory_does_not_grow_with_the_video(tiny_model: Models) -> None:
    encoder = ClipEncoder(tiny_model("videomae"), 2.0, window_seconds=2.0, stride_seconds=1.0)
    builder = encoder.begin(VideoInfo(60.0, 32, 24, 2.0, Path("v.mp4")))
    picture, held = np.zeros((16, 21, 3), dtype=np.uint8), []
    for index in range(120):
        builder.add(index / 2, picture)
        held.append(len(builder._held) + 4 * len(builder._batch))
    assert max(held) <= 4 + 4 * encoder.batch_clips
    assert builder.finish().shape == (120, 16)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=6),
    st.floats(0.2, 3),
    st.floats(0.3, 4),
    st.integers(1, 9),
)
def test_time_means_are_means_over_fine_steps(
    values: list[float], step: float, rate: float, count: int
) -> None:
    found = time_means(np.array(values, dtype=np.float32)[:, None], step, count, rate)[:, 0]
    for row in range(count):
        times = (row + (np.arange(4000) + 0.5) / 4000) / rate
        held = np.minimum(times // step, len(values) - 1).astype(int)
        assert found[row] == pytest.approx(np.mean(np.array(values)[held]), abs=0.02)


def test_clips_of_the_stride_of_a_row_are_its_rows() -> None:
    values = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    np.testing.assert_allclose(time_means(values, 0.5, 7, 2.0), values, atol=1e-6)
    with pytest.raises(ValueError, match="must be positive"):
        ClipTiming(0.0, 1.0, 4)


def test_x_clip_shares_a_space_with_its_text_side(tiny_model: Models) -> None:
    text, video = TransformersTextEncoder(tiny_model("xclip")), ClipEncoder(tiny_model("xclip"))
    vector = text.encode(["dogs run"])[0].sentence
    assert vector is not None
    assert vector.shape == (video.width,)
    assert text.name.split("-layer")[0] in video.name


def test_settings_of_a_video_processor_are_read(tiny_model: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model("timesformer"), tmp_path / "timesformer")
    content = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    content.pop("image_processor_type")
    file = folder / "video_preprocessor_config.json"
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    file.write_text(json.dumps(content | {"video_processor_type": "TimesformerVideoProcessor"}))
    expected = ClipEncoder(tiny_model("timesformer")).prepare(picture)
    torch.testing.assert_close(ClipEncoder(folder).prepare(picture), expected)
    file.write_text(json.dumps(content | {"video_processor_type": "OtherVideoProcessor"}))
    with pytest.raises(DataError, match="the video processor 'OtherVideoProcessor' is not supported"):
        ClipEncoder(folder)


def test_other_models_are_refused_and_copies_carry_no_weights(tiny_model: Models, video: Path) -> None:
    with pytest.raises(DataError, match="write image: instead of video:"):
        ClipEncoder(tiny_model("clip"))
    encoder = ClipEncoder(tiny_model("xclip"))
    rows = encode_video(video, encoder).rows
    copy = pickle.loads(pickle.dumps(encoder))
    assert len(pickle.dumps(encoder)) < 10_000
    np.testing.assert_array_equal(encode_video(video, copy).rows, rows)
