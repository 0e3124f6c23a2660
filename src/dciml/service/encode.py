"""Encodes one video into a feature store, as a process of its own: `python -m dciml.service.encode`.

What comes from clients is decoded here and not in the server: a file that breaks the decoder breaks this process,
which can be ended at any moment. Standard input takes one JSON object (see `EncodeOrder`); each line of standard output
is one: `{"progress": 0.5}`, and at last `{"done": true}` or `{"error": "a sentence"}`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dciml.errors import DataError, DcimlError
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
from dciml.processes import limit_memory, share_of_memory
from dciml.service.troubles import MISTAKE, sentence_of, trouble_of

STEP = 0.02
Tell = Callable[[dict[str, object]], None]


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
    os.nice(10)  # people who search come first
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what libraries print must not be taken for a word to the server

        def tell(message: dict[str, object]) -> None:
            print(json.dumps(message), file=channel, flush=True)

        limit_memory(share_of_memory(1))
        try:
            encode(EncodeOrder(**json.loads(sys.stdin.read())), tell)
        except MemoryError:
            tell(
                {"error": sentence_of(DataError("reading it needs too much memory", mend="convert the file"))}
            )
        except DcimlError as error:
            trouble = trouble_of(error)
            tell({"error": trouble.sentence if trouble else sentence_of(error)})
        except OSError as error:
            trouble = trouble_of(error)
            tell({"error": trouble.sentence if trouble else MISTAKE})
        else:
            tell({"done": True})


def _reporting(encoder: VideoEncoder, tell: Tell) -> VideoEncoder:
    if isinstance(encoder, JoinedEncoder):
        return JoinedEncoder([Reporting(part, tell) for part in encoder.parts])
    return Reporting(encoder, tell)


if __name__ == "__main__":
    main()
