"""Encodes one video into a feature store, as a process of its own: `python -m dciml.service.encode`.

What comes from clients is decoded here and not in the server: a file that breaks the decoder breaks this process,
which can be ended at any moment. Standard input takes one JSON object (see `Order`); each line of standard output
is one: `{"progress": 0.5}`, and at last `{"done": true}` or `{"error": "a sentence"}`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from dciml.errors import DataError, DcimlError
from dciml.features.base import FloatRows, FrameEncoder, RowBuilder
from dciml.features.joined import JoinedEncoder, VideoEncoder, encode_video
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.video_encoders import create_video_encoder
from dciml.media import RGBFrame, VideoInfo, probe
from dciml.service.sentences import sentence_of

MAX_PIXELS = 8192 * 4320
STEP = 0.02


@dataclass(frozen=True)
class Order:
    """What to do: encode `file` as `video_id` into `store`, saying that it came from `source`.

    `like` is a store of the same encoder, `encoders` are the specs that make it; none: the project's own.
    """

    file: str
    video_id: str
    store: str
    source: str
    like: str
    encoders: list[str]
    device: str

    def to_json(self) -> str:
        """As standard input takes it."""
        return json.dumps(asdict(self))


class Reporting:
    """A frame encoder that tells how far it is."""

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder
        self.name, self.width = encoder.name, encoder.width
        self.rows_per_second, self.frames_per_second = encoder.rows_per_second, encoder.frames_per_second

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """As the encoder."""
        return self._encoder.picture_size(width, height)

    def begin(self, info: VideoInfo) -> RowBuilder:
        """As the encoder."""
        return _ReportingBuilder(self._encoder.begin(info), info.duration_seconds)


class _ReportingBuilder:
    def __init__(self, builder: RowBuilder, duration_seconds: float) -> None:
        self._builder, self._duration_seconds, self._told = builder, duration_seconds, 0.0

    def add(self, seconds: float, picture: RGBFrame) -> None:
        self._builder.add(seconds, picture)
        progress = min(seconds / self._duration_seconds, 1.0)
        if progress >= self._told + STEP:
            self._told = progress
            _tell({"progress": round(progress, 3)})

    def finish(self) -> FloatRows:
        return self._builder.finish()


def encode(order: Order) -> None:
    """Carry out an order. Raises DcimlError: damaged, too large, or no such encoder here."""
    file = Path(order.file)
    info = probe(file)
    if info.width * info.height > MAX_PIXELS:
        raise DataError(
            f"its pictures are too large ({info.width}x{info.height})", mend="scale the video down"
        )
    encoder = _reporting(_same_encoder(order))
    video = encode_video(file, encoder)
    manifest = StoreManifest(encoder.name, encoder.width, encoder.rows_per_second)
    with FeatureStoreWriter(Path(order.store), manifest) as writer:
        writer.append(order.video_id, video.rows, video.duration_seconds, source=order.source)


def main() -> None:
    """Read the order, carry it out, and say how it went."""
    os.nice(10)  # people who search come first
    try:
        encode(Order(**json.loads(sys.stdin.read())))
    except DcimlError as error:
        _tell({"error": sentence_of(error)})
    else:
        _tell({"done": True})


def _same_encoder(order: Order) -> VideoEncoder:
    wanted = FeatureStore.open(order.like).manifest
    specs = order.encoders or ["builtin"]
    parts = [
        create_video_encoder(
            spec, rows_per_second=wanted.rows_per_second, device=order.device, alone=len(specs) == 1
        )
        for spec in specs
    ]
    encoder: VideoEncoder = parts[0] if len(parts) == 1 else JoinedEncoder(parts)
    if encoder.name != wanted.encoder:
        raise DataError(
            f"the features of this index are of {wanted.encoder!r}, and the server makes those of {encoder.name!r}",
            mend="start the server with the --encoder that `dciml extract` was given",
        )
    return encoder


def _reporting(encoder: VideoEncoder) -> VideoEncoder:
    if isinstance(encoder, JoinedEncoder):
        return JoinedEncoder([Reporting(part) for part in encoder.parts])
    return Reporting(encoder)


def _tell(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
