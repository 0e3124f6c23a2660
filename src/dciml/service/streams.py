"""What a video file holds, in words for people, and in those that a browser can be asked with.

Nothing heavy is loaded here: this is looked at in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dciml.processes import Beat
from dciml.video_streams import opened_container, picture_stream


@dataclass(frozen=True)
class Streams:
    """What a file holds: its form and the codec of its pictures, for people.

    `type` is what a browser can be asked whether it plays such pictures; None: no browser does.
    """

    form: str
    pictures: str
    type: str | None


FORMS = {
    "mov,mp4,m4a,3gp,3g2,mj2": "MP4 or QuickTime",
    "matroska,webm": "Matroska or WebM",
    "avi": "AVI",
    "mpegts": "MPEG transport stream",
    "mpeg": "MPEG program stream",
    "asf": "Windows Media",
    "flv": "Flash Video",
    "ogg": "Ogg",
}
CODECS = {
    "h264": ("H.264", 'video/mp4; codecs="avc1.640028"'),
    "hevc": ("HEVC (H.265)", 'video/mp4; codecs="hvc1.1.6.L93.B0"'),
    "av1": ("AV1", 'video/mp4; codecs="av01.0.08M.08"'),
    "vp9": ("VP9", 'video/webm; codecs="vp9"'),
    "vp8": ("VP8", 'video/webm; codecs="vp8"'),
    "theora": ("Theora", 'video/ogg; codecs="theora"'),
    "mpeg4": ("MPEG-4 Part 2 (as of DivX and Xvid)", 'video/mp4; codecs="mp4v.20.9"'),
    "mpeg1video": ("MPEG-1", None),
    "mpeg2video": ("MPEG-2", None),
    "prores": ("ProRes", None),
    "dnxhd": ("DNxHD", None),
    "mjpeg": ("Motion JPEG", None),
    "dvvideo": ("DV", None),
    "vc1": ("Windows Media Video", None),
    "wmv3": ("Windows Media Video", None),
    "wmv2": ("Windows Media Video", None),
    "wmv1": ("Windows Media Video", None),
}
"""By FFmpeg's names."""


def streams_of(media: Path, beat: Beat) -> Streams:
    """Open a file and look. Raises DataError: it cannot be opened, or there are no pictures in it."""
    del beat
    with opened_container(media) as container:
        pictures = picture_stream(media, container)
        codec = pictures.codec_context.codec.canonical_name
        words, kind = CODECS.get(codec, (codec, None))
        form = container.format.name
        return Streams(FORMS.get(form, form), words, kind)
