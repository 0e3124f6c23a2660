"""A picture as a query, where the rows of the videos are of an image–text model: its own feature asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dciml.errors import DataError
from dciml.features import (
    FloatRows,
    JoinedEncoder,
    StoreManifest,
    VideoEncoder,
    encoder_of,
    read_manifest,
    widths_of,
)
from dciml.media import RGBFrame
from dciml.method import CosineSpace
from dciml.search import Answer, BaselineEngine, Searcher


@runtime_checkable
class EncodesPictures(Protocol):
    """The encoder of an image–text model."""

    def encode_pictures(self, pictures: Sequence[RGBFrame]) -> FloatRows:
        """Features (n, width) of pictures, of length 1."""


MOST_BYTES = 64 * 1024 * 1024
MOST_PIXELS = 100_000_000


def answer_picture(
    searcher: Searcher,
    picture: Path | bytes,
    k: int = 10,
    within: Sequence[str] | None = None,
    device: str = "cpu",
) -> Answer:
    """The moments that look like a picture, best first; text beside the videos does not count. No confidence is stated.

    Args:
        picture: a file, or the content of one.
        within: whole videos to look in; None: all.
    Raises:
        DataError: the picture cannot be read, or the index cannot be asked by one; the message says why.
    """
    return searcher.answer_vector(picture_vector(searcher, picture, device), k, within)


def picture_vector(searcher: Searcher, picture: Path | bytes, device: str = "cpu") -> NDArray[np.float32]:
    """The query vector (D,) of a picture. Raises DataError: as `answer_picture`."""
    engine, store = searcher.engine, searcher.index.store_path()
    space = engine.space if isinstance(engine, BaselineEngine) else None
    if not isinstance(space, CosineSpace):
        raise DataError(
            "this index is of a trained model, which was taught to be asked by sentences alone",
            where=searcher.index.path,
            mend="ask an index of `dciml serve FOLDER`, or of `dciml baseline cosine`",
        )
    manifest = read_manifest(store)
    places = [place for place, spec in enumerate(manifest.encoder_specs) if spec.startswith("image:")]
    if not places:
        raise DataError(
            f"the features of this index are of {manifest.encoder}, and not of an image–text model",
            where=searcher.index.path,
            mend="serve the folder, or extract, with --encoder image:MODEL",
        )
    rgb = read_picture(picture)
    encoder = _encoder(manifest, device)
    parts = encoder.parts if isinstance(encoder, JoinedEncoder) else (encoder,)
    vectors = [np.zeros(width, dtype=np.float32) for width in widths_of(encoder)]
    for place in places:
        part = parts[place]
        assert isinstance(part, EncodesPictures)
        vectors[place] = part.encode_pictures([rgb])[0]
    asked: NDArray[np.float32] = space.weighed(np.concatenate(vectors)[None])[0]
    return asked


@lru_cache(maxsize=2)
def _encoder(manifest: StoreManifest, device: str) -> VideoEncoder:
    return encoder_of(manifest, device)


def read_picture(source: Path | bytes) -> RGBFrame:
    """A picture (height, width, 3) as it is shown: upright, and on white where it is transparent.

    Raises:
        DataError: missing, no picture, damaged, or too large.
    """
    where = source if isinstance(source, Path) else None
    mend = "name a picture, such as a JPEG or PNG file"
    try:
        num_bytes = source.stat().st_size if isinstance(source, Path) else len(source)
        if num_bytes > MOST_BYTES:
            raise DataError("the picture is larger than 64 MiB", where=where, mend="make it smaller")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on sizes and metadata
            with Image.open(source if isinstance(source, Path) else BytesIO(source)) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise DataError(
                        f"the picture has {opened.width} × {opened.height} pixels",
                        where=where,
                        mend="make it smaller",
                    )
                upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=where, mend="check the path") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError(
            "this is no picture that can be read", where=where, mend=mend
        ) from None  # no fault of the disk
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))
