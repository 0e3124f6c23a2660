"""How much of PyAV's own speed extraction with the built-in encoder reaches, per core, on one file.

    python benchmarks/extract.py [FILE …]

Without files, two are made: 20 s of 1280x720 and 30 s of 640x360, H.264 (x264, medium, crf 23), 30 pictures a second,
a moving, grainy scene. Counted is processor time of this process, decoding with one thread on both sides, so other work
on the machine matters little. The goal is at least 60 %; more than 100 % is possible, since pictures that are not
sampled and that no other picture refers to are not decoded.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import av
import numpy as np

from dciml.features import BuiltinVisualEncoder, encode_video
from dciml.media import RGBFrame, write_video

REPEATS = 3
FPS = 30


def main() -> None:
    """Measure each file and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        for path in files or make_files(Path(folder)):
            measure(path)


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
