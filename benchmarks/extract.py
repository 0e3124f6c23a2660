"""How much of PyAV's own speed extraction with the built-in encoder reaches, per core, on one file.

    python benchmarks/extract.py [FILE …]

Without files, two are made: 20 s of 1280x720 and 30 s of 640x360, H.264 (x264, medium, crf 23), 30 pictures a second,
a moving, grainy scene. Counted is processor time of this process, decoding with one thread on both sides, so other work
on the machine matters little. The goal is at least 60 %; more than 100 % is possible, since pictures that are not
sampled and that no other picture refers to are not decoded.

    python benchmarks/extract.py --model [FILE …]

measures an image–text model of the size of ViT-B/32, with random weights, at one row a second, in float32, bf16 and
int8, each in a process of its own: processor time for a second of video, how many times faster than the video two
cores with nothing else to do would be (each with a video of its own, as `--workers 2` has it), the cosine to the rows
of float32, and the peak memory beside the model. The goals are 20 times, .999 for bf16 and .98 for int8, and 1 GB.
Without files, 20 s of 1280x720 are made, with a key picture every 250 pictures and every second.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import process_time

import av
import numpy as np

from dciml.features import BuiltinVisualEncoder, Precision, encode_video
from dciml.features.base import PRECISIONS, FloatRows
from dciml.features.encoders.transformers_vision import ImageTextEncoder
from dciml.media import RGBFrame, write_video

REPEATS = 3
FPS = 30


def main() -> None:
    """Measure each file and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--model", action="store_true", help="measure an image–text model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model:
            measure_model(options.files, Path(folder))
            return
        for path in options.files or make_files(Path(folder)):
            measure(path)


@dataclass(frozen=True)
class Run:
    """What one extraction by a model took; memory in MiB, `beside` is the peak less what the loaded model takes."""

    rows: FloatRows
    duration_seconds: float
    processor_seconds: float
    model: int
    beside: int


def measure_model(files: Sequence[Path], folder: Path) -> None:
    """Print a line for each file and precision."""
    from encoders import save_random_model

    save_random_model("ViT-B/32", folder / "model")
    for path in files or make_key_files(folder):
        exact: FloatRows | None = None
        for precision in (None, *PRECISIONS):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                run = pool.submit(run_model, path, folder / "model", precision).result()
            exact = run.rows if exact is None else exact
            cosine = float((run.rows * exact).sum(axis=1).min())
            cost = run.processor_seconds / run.duration_seconds
            print(
                f"{path.name} {precision or 'float32':7} {1e3 * cost:4.0f} ms of processor a second of video, "
                f"{2 / cost:3.0f} times real time on two cores; cosine {cosine:.4f}; "
                f"peak {run.beside} MiB beside {run.model} MiB",
                flush=True,
            )


def run_model(path: Path, model: Path, precision: Precision | None) -> Run:
    """Extract a file on one thread, with the model loaded before."""
    import torch

    torch.set_num_threads(1)
    encoder = ImageTextEncoder(model, 1.0, precision=precision)
    before = resident_mib("VmRSS")
    encoder.encode_pictures([np.zeros((448, 796, 3), dtype=np.uint8)])
    loaded = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    begin = process_time()
    video = encode_video(path, encoder)
    seconds = process_time() - begin
    return Run(
        video.rows,
        video.duration_seconds,
        seconds,
        loaded - before,
        resident_mib("VmHWM") - (loaded - before),
    )


def resident_mib(name: str) -> int:
    """A line of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(f"{name}:"))


def make_key_files(folder: Path) -> Iterator[Path]:
    """Write 20 s of 720p twice: as x264 does by itself, and as phones and cameras do, a key picture every second."""
    for name, options in (("720p.mp4", {}), ("720p_keys.mp4", {"g": "30", "bf": "0"})):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"preset": "medium", **options})
            stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
            stream.bit_rate = 3_000_000
            for picture in scene(1280, 720, 20 * FPS):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        yield folder / name


def measure(path: Path) -> None:
    """Print frames per second of both, the best of a few runs each."""
    num_frames, alone = min((decode_alone(path) for _ in range(REPEATS)), key=lambda run: run[1])
    whole = min(encode(path) for _ in range(REPEATS))
    print(
        f"{path.name}: {num_frames} frames; PyAV alone {num_frames / alone:.0f} frames/s, "
        f"built-in encoder {num_frames / whole:.0f} frames/s: {alone / whole:.0%}"
    )


def decode_alone(path: Path) -> tuple[int, float]:
    """Decode every frame and do nothing with it: how many, and processor seconds."""
    begin = process_time()
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        num_frames = sum(1 for _ in container.decode(video=0))
    return num_frames, process_time() - begin


def encode(path: Path) -> float:
    """Extract the rows of a file: processor seconds."""
    begin = process_time()
    encode_video(path, BuiltinVisualEncoder())
    return process_time() - begin


def make_files(folder: Path) -> Iterator[Path]:
    """Write the two files."""
    for width, height, seconds in ((1280, 720, 20), (640, 360, 30)):
        path = folder / f"{height}p.mp4"
        write_video(path, scene(width, height, seconds * FPS), FPS, preset="medium")
        yield path


def scene(width: int, height: int, num_frames: int) -> Iterator[RGBFrame]:
    """A camera that pans over patches of colour while a red block crosses, with grain."""
    rng = np.random.default_rng(0)
    patches = rng.integers(30, 220, (height // 16 + 16, width // 16 + 64, 3), dtype=np.uint8)
    wide = patches.repeat(16, axis=0).repeat(16, axis=1)
    grain = rng.integers(0, 8, (64, height, width, 1), dtype=np.uint8)
    for index in range(num_frames):
        left, top = 3 * index % 800, round(100 + 50 * np.sin(index / 20))
        picture = wide[top : top + height, left : left + width] + grain[index % len(grain)]
        block = 7 * index % (width - width // 6)
        picture[height // 3 : height // 2, block : block + width // 6] = (220, 40, 40)
        yield picture


if __name__ == "__main__":
    main()
