"""Frames a second that image–text models encode: CLIP of the size of ViT-B/32 and of ViT-L/14, with random weights.

    python benchmarks/encoders.py --device cuda

Time depends on the size of a model, not on its weights, so nothing is downloaded. `model` is the model alone on
pictures that are ready on the device; `encoder` is what `dciml extract` calls: scaling, normalising, copying, model.
Beside them stands decoding of 640x360 H.264 on one thread, where PyAV is installed.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from machine import write_figures

from dciml.features.encoders.transformers_vision import ImageTextEncoder

SIZES: dict[str, dict[str, int]] = {
    "ViT-B/32": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                 "num_attention_heads": 12, "patch_size": 32, "image_size": 224},
    "ViT-L/14": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                 "num_attention_heads": 16, "patch_size": 14, "image_size": 224},
    "tiny": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2, "patch_size": 8, "image_size": 32},
}  # fmt: skip
SMALL_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDTH, HEIGHT = 640, 360
PROJECTION = 512


def main() -> None:
    """Measure each model and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["ViT-B/32", "ViT-L/14"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"models": {}}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            save_random_model(name, Path(folder))
            row = measure(ImageTextEncoder(folder, device=options.device), options.pictures, options.device)
        figures["models"][name] = row
        print(
            f"{name:9} model {row['model_frames_per_second']:8.0f} frames/s   "
            f"encoder {row['encoder_frames_per_second']:8.0f} frames/s   {row['dtype']}, "
            f"{row['pictures_at_once']} pictures at once",
            flush=True,
        )
        figures["decoding_frames_per_second"] = None
        write_figures(options.json, figures)
    if find_spec("av") is not None:
        figures["decoding_frames_per_second"] = decoding()
        print(f"decoding  {figures['decoding_frames_per_second']:.0f} frames/s on one thread, 640x360 H.264")
        write_figures(options.json, figures)


def save_random_model(name: str, folder: Path) -> None:
    """A CLIP folder of this size, without its text side, as `save_pretrained` leaves it."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    vision = SIZES[name]
    config = CLIPConfig(text_config=SMALL_TEXT, vision_config=vision, projection_dim=PROJECTION)
    CLIPModel(config).save_pretrained(folder)
    side = vision["image_size"]
    CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)


def measure(encoder: ImageTextEncoder, num_pictures: int, device: str) -> dict[str, Any]:
    """Frames a second of the model alone and of the whole encoder."""
    at_once = min(encoder.batch_frames, num_pictures)
    rng = np.random.default_rng(0)
    width, height = encoder.picture_size(WIDTH, HEIGHT)
    pictures = [rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(at_once)]
    encoder.encode_pictures(pictures)  # loads the model, and warms up
    model, rounds = encoder._model.get(), max(1, num_pictures // at_once)
    with torch.inference_mode():
        inputs = encoder._model.inputs(encoder._processor(pictures))
        alone = _seconds(lambda: model.get_image_features(**inputs), rounds, device)
    whole = _seconds(lambda: encoder.encode_pictures(pictures), rounds, device)
    return {
        "pictures_at_once": at_once,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "model_frames_per_second": rounds * at_once / alone,
        "encoder_frames_per_second": rounds * at_once / whole,
    }


def _seconds(work: Any, rounds: int, device: str) -> float:
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(rounds):
        work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return perf_counter() - start


def decoding() -> float:
    """Frames a second of PyAV alone, of processor time, one thread."""
    from extract import FPS, decode_alone, scene

    from dciml.media import write_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        write_video(path, scene(WIDTH, HEIGHT, 10 * FPS), FPS, preset="medium")
        frames, seconds = decode_alone(path)
    return frames / seconds


if __name__ == "__main__":
    main()
