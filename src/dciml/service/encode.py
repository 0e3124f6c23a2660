"""Encodes one video into a feature store, as a process of its own: `python -m dciml.service.encode`.

What comes from clients is decoded here and not in the server: a file that breaks the decoder breaks this process,
which can be ended at any moment. The order is an `EncodeOrder`; see `dciml.service.guarded`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dciml.features import (
    FeatureStore,
    FeatureStoreWriter,
    FloatRows,
    FrameEncoder,
    JoinedEncoder,
    RowBuilder,
    StoreManifest,
    VideoEncoder,
    encode_video,
    encoder_of,
    lasting_specs,
)
from dciml.media import RGBFrame, VideoInfo
from dciml.service.guarded import Tell, carry_out

STEP = 0.02


@dataclass(frozen=True)
class EncodeOrder:
    """What to do: encode `file` as `video_id` into `store`, saying that it came from `source`.

    `like` is a store of the same encoder, `encoders` are the specs that make it; none: as that store says.
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

    def __init__(self, encoder: FrameEncoder, tell: Tell) -> None:
        self._encoder, self._tell = encoder, tell
        self.name, self.width = encoder.name, encoder.width
        self.rows_per_second, self.frames_per_second = encoder.rows_per_second, encoder.frames_per_second

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """As the encoder."""
        return self._encoder.picture_size(width, height)

    def begin(self, info: VideoInfo) -> RowBuilder:
        """As the encoder."""
        return _ReportingBuilder(self._encoder.begin(info), info.duration_seconds, self._tell)


class _ReportingBuilder:
    def __init__(self, builder: RowBuilder, duration_seconds: float, tell: Tell) -> None:
        self._builder, self._duration_seconds, self._tell = builder, duration_seconds, tell
        self._told = 0.0

    def add(self, seconds: float, picture: RGBFrame) -> None:
        self._builder.add(seconds, picture)
        progress = min(seconds / self._duration_seconds, 1.0)
        if progress >= self._told + STEP:
            self._told = progress
            self._tell({"progress": round(progress, 3)})

    def finish(self) -> FloatRows:
        return self._builder.finish()


def encode(order: EncodeOrder, tell: Tell) -> None:
    """Carry out an order. Raises DcimlError: damaged, too large, or no such encoder here."""
    file = Path(order.file)
    like = FeatureStore.open(order.like).manifest
    encoder = _reporting(encoder_of(like, order.device, order.encoders), tell)
    video = encode_video(file, encoder)
    specs = lasting_specs(order.encoders) or like.encoder_specs
    manifest = StoreManifest(encoder.name, encoder.width, encoder.rows_per_second, specs)
    with FeatureStoreWriter(Path(order.store), manifest) as writer:
        # A video of that name may have been here, and left the index: its rows give way.
        writer.append(order.video_id, video.rows, video.duration_seconds, source=order.source, replace=True)


def main() -> None:
    """Read the order, carry it out, and say how it went."""
    carry_out(lambda text, tell: encode(EncodeOrder(**json.loads(text)), tell))


def _reporting(encoder: VideoEncoder, tell: Tell) -> VideoEncoder:
    if isinstance(encoder, JoinedEncoder):
        return JoinedEncoder([Reporting(part, tell) for part in encoder.parts])
    return Reporting(encoder, tell)


if __name__ == "__main__":
    main()
