"""Each spec gives its encoder; a wrong one is explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dciml.errors import ConfigError, DataError
from dciml.features.encoders.specs import create_video_encoder

Models = Callable[[str], Path]


def test_each_spec_gives_its_encoder(tiny_model: Models) -> None:
    clip, mae = tiny_model("clip"), tiny_model("videomae")
    built_in = create_video_encoder("builtin", rows_per_second=1.0)
    assert (built_in.name, built_in.rows_per_second) == ("builtin-visual-1", 1.0)
    image = create_video_encoder(f"image:{clip}:frames=3")
    assert image.name.startswith("image:tiny-clip@")
    assert (image.rows_per_second, image.frames_per_second) == (2.0, 6.0)
    video = create_video_encoder(f"video:{mae}:window=4,stride=0.5", rows_per_second=1.0)
    assert video.name.endswith("-window4-stride0.5")
    assert video.frames_per_second == 1.0
    assert create_video_encoder(f"video:{mae}").name.endswith("-window2-stride1")
    text = create_video_encoder("text:words:12", rows_per_second=1.0)
    assert (text.width, text.rows_per_second, text.frames_per_second) == (12, 1.0, 0.0)
    assert create_video_encoder(f"text:transformers:{clip}").name.startswith("text:tiny-clip@")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bultin", "did you mean builtin"),
        ("image:", "unknown video encoder 'image:'"),
        ("builtin:2", "unknown video encoder"),
        ("image:x:frame=2", "there is no option 'frame'; image knows frames"),
        ("image:x:frames=0", "frames must be a positive number, not '0'"),
        ("image:x:frames=1.5", "frames must be a whole number"),
        ("video:x:window=2,stride=nan", "stride must be a positive number, not 'nan'"),
        ("video:x:window=", "window must be a positive number, not ''"),
        ("text:nothing", "unknown text encoder 'nothing'"),
    ],
)
def test_wrong_specs_are_explained(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_video_encoder(spec)


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "no device 'gpu'"), ("cuda:99", "'cuda:99' is not here")]
)
def test_device_that_is_not_here_is_named(tiny_model: Models, device: str, message: str) -> None:
    clip, mae = tiny_model("clip"), tiny_model("videomae")
    for spec in (f"image:{clip}", f"video:{mae}", f"text:transformers:{clip}"):
        with pytest.raises(ConfigError, match=message):
            create_video_encoder(spec, device=device)


def test_rate_and_model_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows a second must be a positive number"):
        create_video_encoder("builtin", rows_per_second=0.0)
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="neither a folder nor a model in the local cache"):
        create_video_encoder(f"image:{tmp_path / 'nowhere'}")
