"""A video of hours in which next to nothing happens, but for one planted event; for tests and measurements.

Minutes without an event are drawn and encoded once, and their packets come again and again, so that three hours are
written in seconds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from dciml.demo.corpus import FRAMES_PER_SECOND, render
from dciml.demo.drawing import Pose
from dciml.demo.story import Actor, Event, Story, sentence
from dciml.files import atomic_path
from dciml.media import write_video
from dciml.types import Query

MINUTE = 60.0
EVENT_SECONDS = 8.0
HOME = Pose(0.5, 0.5)
BYSTANDERS = (None, Actor("cat", "green"), Actor("ball", "yellow"))
"""Who stands still in a minute without the event; such minutes take turns."""


@dataclass(frozen=True)
class PlantedEvent:
    """What happens, where, and from when on; it lasts `EVENT_SECONDS` and must not go past the end of its minute."""

    actor: Actor
    action: str
    start_seconds: float
    scene: str = "beach"

    def query(self, video_id: str, seed: int = 0) -> Query:
        """A sentence that tells of it, with its moment."""
        rng = np.random.default_rng(seed)
        text = sentence(self.actor.colour, self.actor.kind, self.action, self.scene, rng)
        span = (self.start_seconds, self.start_seconds + EVENT_SECONDS)
        return Query(f"{video_id}-planted", video_id, text, (span,))


def write_long_video(path: Path, minutes: int, planted: PlantedEvent, seed: int = 0) -> None:
    """Write a video of a number of minutes as H.264 in MP4, atomically.

    Raises:
        ValueError: the event does not lie in one minute of the video.
    """
    minute, offset = divmod(planted.start_seconds, MINUTE)
    if not 0 <= minute < minutes or offset + EVENT_SECONDS > MINUTE:
        raise ValueError(
            f"the event at {planted.start_seconds} s does not lie in one of the {minutes} minutes"
        )
    event = Event(planted.actor, planted.action, offset, offset + EVENT_SECONDS, HOME)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        gaps = [Path(folder) / f"gap{number}.mp4" for number in range(len(BYSTANDERS))]
        for gap, bystander in zip(gaps, BYSTANDERS, strict=True):
            still = () if bystander is None else (Event(bystander, "stays", 0.0, MINUTE, Pose(0.3, 0.6)),)
            _draw(gap, Story("", planted.scene, MINUTE, (), still, (), (seed, 9)))
        with_event = Path(folder) / "event.mp4"
        _draw(with_event, Story("", planted.scene, MINUTE, (event,), (), (), (seed, 9)))
        parts = [with_event if number == minute else gaps[number % len(gaps)] for number in range(minutes)]
        _join(path, parts)


def _draw(path: Path, story: Story) -> None:
    write_video(path, render(story), FRAMES_PER_SECOND, preset="superfast", crf=27)


def _join(path: Path, parts: list[Path]) -> None:
    """Put videos of one minute, alike in size and settings, one after another without encoding them again."""
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as joined:
        stream: Any = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as minute:
                source = minute.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source)
                assert source.time_base is not None
                shift = round(number * MINUTE / source.time_base)
                for packet in minute.demux(source):
                    if packet.dts is None or packet.pts is None:  # the last one only flushes
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    joined.mux(packet)
