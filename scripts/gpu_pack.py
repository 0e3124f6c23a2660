"""Gathers what a GPU machine without network lacks: wheels, and corpora cut to fit.

    scripts/gpu_pack.sh --corpus demo=demo-out/data --corpus flickr_stitched=data/flickr_stitched --megabytes 60

    OUT/pack.json          what is in it, and what was cut
    OUT/wheels/            for CPython 3.12 on Linux, x86-64
    OUT/corpora/NAME/      data folders; text/ has word vectors where the text encoder needs a package

The smallest corpus takes what it needs, up to an equal share of what the wheels leave; the others share the rest.
Videos with more rows than the model of a short schedule reads (`--rows`) are pooled to that many; then training videos
are left out, drawn by a hash of their ids. Where fewer than half of them would stay, rows are first made smaller
(pooled further, down to a third; projected on the 512, 256 or 128 axes on which training rows are longest). Test videos
are all kept as long as they leave any room for training. Figures of a cut corpus say so: the cut stands in the notes of
the data folder and in pack.json.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.datasets import DataFolder, write_data_folder
from dciml.errors import DataError, DcimlError
from dciml.features import (
    FeatureStoreWriter,
    StoreManifest,
    Vocabulary,
    create_text_encoder,
    mean_pool,
    tokenize,
)
from dciml.features.encoders.word_vectors import WORD_VECTORS_FILE, write_word_vectors
from dciml.files import atomic_folder, write_json
from dciml.types import Query, Video

ROOT = Path(__file__).resolve().parents[1]
WHEELS = (
    "annotated-types", "beartype", "defusedxml", "jaxtyping", "lazy-loader", "lightning-fabric", "lightning-utilities",
    "nltk", "pydantic", "pydantic-core", "pytest-timeout", "textblob", "typing-inspection", "wadler-lindig",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MEGABYTE = 1_000_000
WORDS = {"demo": "words"}  # text encoders that need no package; the other corpora are read by MiniLM


@dataclass(frozen=True)
class Cut:
    """What is kept of a corpus: rows of a video and numbers of a row at most, and videos of each split."""

    rows: int
    width: int
    train: tuple[Video, ...]
    test: tuple[Video, ...]


def cut_to_fit(data: DataFolder, bytes_left: float, most_rows: int) -> Cut:
    """Make rows fewer and narrower, then leave out training videos, until the rows fit.

    Raises:
        DataError: not even the test videos at the smallest leave room for a tenth of the training videos.
    """
    full = data.store.manifest.width
    rows_of = {
        v.video_id: data.store.num_rows(v.video_id) for v in (*data.videos("train"), *data.videos("test"))
    }
    order = sorted(data.videos("train"), key=lambda v: hashlib.sha256(v.video_id.encode()).digest())
    test = data.videos("test")
    for rows, width in smaller(most_rows, full):
        left, train = bytes_left - sum(2 * width * min(rows, rows_of[v.video_id]) for v in test), []
        for video in order:
            left -= 2 * width * min(rows, rows_of[video.video_id])
            if left < 0:
                break
            train.append(video)
        if 2 * len(train) >= len(order):
            break
    if 10 * len(train) < len(order) or not train:
        raise DataError(
            f"{bytes_left / MEGABYTE:.1f} MB hold {len(train)} of {len(order)} training videos beside the test videos",
            where=data.path,
            mend="raise --megabytes, lower --rows, or pack fewer corpora at a time",
        )
    kept = {video.video_id for video in train}
    return Cut(rows, width, tuple(v for v in data.videos("train") if v.video_id in kept), test)


def smaller(rows: int, width: int) -> list[tuple[int, int]]:
    """Rows of a video and numbers of a row at most, from the largest on."""
    tried = [(rows, width), (rows * 2 // 3, width), (rows // 2, width)]
    tried += [(rows // 2, narrow) for narrow in (512, 256) if narrow < width]
    return tried + [(rows // 3, narrow) for narrow in (width, 256, 128) if narrow <= min(width, tried[-1][1])]


def longest_axes(data: DataFolder, videos: Sequence[Video], width: int) -> NDArray[np.float32]:
    """The axes (width of the store, width) on which the rows of some videos are longest; products change least so."""
    full = data.store.manifest.width
    moment = np.zeros((full, full))
    for video in videos[:1000]:
        rows = np.asarray(data.store.rows(video.video_id), dtype=np.float64)
        moment += rows.T @ rows / len(rows)
    axes: NDArray[np.float32] = np.linalg.eigh(moment)[1][:, ::-1][:, :width].astype(np.float32)
    return axes


def pack_corpus(name: str, source: Path, out: Path, bytes_left: float, most_rows: int) -> dict[str, Any]:
    """Write the cut corpus; what pack.json says of it."""
    data = DataFolder.open(source)
    queries = {split: data.queries(split) for split in ("train", "test")}
    sentences = [query.sentence for split in queries.values() for query in split]
    spec = WORDS.get(name, "minilm")
    words = sorted({word for sentence in sentences for word in tokenize(sentence)})
    text_bytes = 0 if spec == "words" else 2 * 384 * len(words)
    cut = cut_to_fit(data, bytes_left - text_bytes - 200 * len(sentences), most_rows)
    kept = {video.video_id for video in (*cut.train, *cut.test)}
    all_train = len(data.videos("train"))
    said = {
        "rows_at_most": cut.rows,
        "width": cut.width,
        "of_width": data.store.manifest.width,
        "train_videos": len(cut.train),
        "of_train_videos": all_train,
        "test_videos": len(cut.test),
        "of_test_videos": len(data.videos("test")),
        "text": "as in the settings"
        if spec == "words"
        else f"word vectors of {spec}, one a word, no context",
    }
    manifest = data.store.manifest
    axes = longest_axes(data, cut.train, cut.width) if cut.width < manifest.width else None

    def build_store(folder: Path) -> None:
        # Rows are spread over the video: pooled ones have no rate of their own.
        with FeatureStoreWriter(
            folder, StoreManifest(manifest.encoder, cut.width, None), commit_every=256
        ) as writer:
            for video in {v.video_id: v for v in (*cut.train, *cut.test)}.values():
                rows = np.asarray(data.store.rows(video.video_id), dtype=np.float32)
                pooled = mean_pool(rows, cut.rows) if len(rows) > cut.rows else rows
                pooled = pooled if axes is None else pooled @ axes
                writer.append(video.video_id, pooled, data.store.duration_seconds(video.video_id))

    def build_text(folder: Path) -> None:
        vocabulary = Vocabulary.build(sentences)
        encoder = create_text_encoder(spec, vocabulary, max_words=1)
        vectors = np.concatenate([encoded.static[:1] for encoded in encoder.encode(words)])
        write_word_vectors(folder / WORD_VECTORS_FILE, words, vectors.astype(np.float16))

    def of_kept(split: str) -> list[Query]:
        return [query for query in queries[split] if query.video_id in kept]

    write_data_folder(
        out,
        data.name,
        {split: of_kept(split) for split in queries},
        (*cut.train, *cut.test),
        build_store,
        build_text=None if spec == "words" else build_text,
        notes={"cut": said},
    )
    return said | {"megabytes": round(folder_bytes(out) / MEGABYTE, 1)}


def folder_bytes(folder: Path) -> int:
    """Of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def download_wheels(folder: Path) -> dict[str, str]:
    """Get the wheels that are at hand; of those that are not, why."""
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    known = {name.lower().replace("_", "-"): number for name, number in pins.items()}
    folder.mkdir(parents=True, exist_ok=True)
    failed = {}
    for name in WHEELS:
        wanted = f"{name}=={known[name]}" if name in known else name
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        try:
            done = subprocess.run(
                [*command, "--dest", str(folder), wanted],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            failed[name] = "it took more than two minutes"
            continue
        if done.returncode:
            failed[name] = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
    return failed


def pack(out: Path, corpora: Sequence[tuple[str, Path]], megabytes: float, rows: int, wheels: bool) -> None:
    """Gather everything; a pack that is there already is replaced when the new one is whole."""
    if out.exists() and any(out.iterdir()) and not (out / "pack.json").is_file():
        raise DataError("there is something here that is no pack", where=out, mend="name another --out")
    said: dict[str, Any] = {"megabytes_at_most": megabytes, "wheels": [], "wheels_missing": {}, "corpora": {}}
    fresh = out.with_name(f"{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with atomic_folder(fresh) as folder:
        if wheels:
            said["wheels_missing"] = download_wheels(folder / "wheels")
            said["wheels"] = sorted(wheel.name for wheel in (folder / "wheels").glob("*.whl"))
        left = megabytes * MEGABYTE - folder_bytes(folder)
        smallest_first = sorted(corpora, key=lambda corpus: folder_bytes(corpus[1] / "features"))
        for number, (name, source) in enumerate(smallest_first):
            share = left / (len(corpora) - number)
            print(f"{name}: {share / MEGABYTE:.1f} MB at most", flush=True)
            place = folder / "corpora" / name
            said["corpora"][name] = pack_corpus(name, source, place, 0.98 * share, rows)
            print(f"{name}: {said['corpora'][name]}", flush=True)
            left -= folder_bytes(place)
        write_json(folder / "pack.json", said | {"megabytes": round(folder_bytes(folder) / MEGABYTE, 1)})
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    for name, why in said["wheels_missing"].items():
        print(f"no wheel of {name}: {why}", file=sys.stderr)
    print(f"{out}: {folder_bytes(out) / MEGABYTE:.1f} MB")


def demo_corpus(out: Path, train: int, test: int, seed: int, workers: int) -> None:
    """Draw the videos of the demo generator and read them; a folder that is there is used as it is."""
    from dciml.demo import CorpusSize, make_data_folder, make_videos, plan_corpus
    from dciml.features import BuiltinVisualEncoder

    if (out / "data.json").is_file():
        return
    stories = plan_corpus(CorpusSize(train, test), seed)
    videos = out.with_name(f"{out.name}-videos")
    make_videos(stories, videos, workers)
    make_data_folder(stories, videos, out, BuiltinVisualEncoder(), workers)
    shutil.rmtree(videos)


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, equals, folder = text.partition("=")
    if not equals or not name.replace("_", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DATA_FOLDER")
    return name, Path(folder)


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="gather wheels and corpora")
    packing.add_argument("--out", type=Path, default=Path(".gpu"))
    packing.add_argument(
        "--corpus", type=named_folder, action="append", default=[], metavar="NAME=DATA_FOLDER"
    )
    packing.add_argument("--megabytes", type=float, default=60.0, help="of the whole pack")
    packing.add_argument("--rows", type=int, default=48, help="of a video at most")
    packing.add_argument("--no-wheels", action="store_true")
    drawing = commands.add_parser("demo-corpus", help="make a data folder with the demo generator")
    drawing.add_argument("--out", type=Path, required=True)
    drawing.add_argument("--train", type=int, default=220)
    drawing.add_argument("--test", type=int, default=60)
    drawing.add_argument("--seed", type=int, default=7)
    drawing.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    try:
        if options.command == "pack":
            pack(options.out, options.corpus, options.megabytes, options.rows, not options.no_wheels)
        else:
            demo_corpus(options.out, options.train, options.test, options.seed, options.workers)
    except DcimlError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
