"""Makes small releases in the forms in which others publish theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

SENTENCES = ("a person opens the door.", "the dog runs across a field.", "she slowly drinks some water.")
MakePrvr = Callable[..., Path]


def make_prvr(
    folder: Path, collection: str, videos: dict[str, Sequence[str]], feature: str = "i3d", width: int = 12
) -> Path:
    """A PRVR release: three captions a video, 10 to 15 rows a video, 1 to 7 tokens more than words."""
    rng = np.random.default_rng(0)
    text, features = folder / "TextData", folder / "FeatureData" / feature
    text.mkdir(parents=True)
    features.mkdir(parents=True)
    names: list[str] = []
    frames: dict[str, list[str]] = {}
    with h5py.File(text / f"roberta_{collection}_query_feat.hdf5", "w") as queries:
        for split, ids in videos.items():
            lines = []
            for video_id in ids:
                frames[video_id] = [f"{video_id}_{i}" for i in range(rng.integers(10, 16))]
                names += frames[video_id]
                for number, sentence in enumerate(SENTENCES):
                    lines.append(f"{video_id}#enc#{number} {sentence}")
                    tokens = len(sentence.split()) + int(rng.integers(1, 8))
                    queries[f"{video_id}#enc#{number}"] = rng.standard_normal((tokens, 16), dtype=np.float32)
            (text / f"{collection}{split}.caption.txt").write_text("\n".join(lines) + "\n")
    order = rng.permutation(len(names))
    rng.standard_normal((len(names), width)).astype("<f4").tofile(features / "feature.bin")
    (features / "id.txt").write_text(" ".join(names[i] for i in order))
    (features / "shape.txt").write_text(f"{len(names)} {width}\n")
    (features / "video2frames.txt").write_text(repr(frames))
    return folder


@pytest.fixture
def prvr_release() -> MakePrvr:
    """The maker of PRVR releases: `make(folder, collection, videos of each split)`."""
    return make_prvr
