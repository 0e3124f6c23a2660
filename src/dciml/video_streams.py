"""Opening a video file, and which of its streams is the video (PyAV)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from dciml.errors import DataError
from dciml.processes import little_memory

MAX_PIXELS = 8192 * 4320
"""A picture that is larger is refused, wherever in the file it comes."""
OPENING_BYTES = 640 * 1024**2
"""To open a file may take so much memory, in a process that is bounded: a head can claim any number of pictures."""
REFUSED_FORMS = {
    "hls": "a playlist",  # these only point to other files or to the network
    "dash": "a playlist",
    "concat": "a playlist",
    "sdp": "a playlist",
    "rtsp": "a playlist",
    "imf": "a playlist",
    "image2": "a single picture",
    "tty": "text",  # any text passes for this form, drawn as on an old terminal
}
SEGMENT = b"\x18\x53\x80\x67"  # the part of a Matroska file that holds all the others
NOT_THE_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
DECODERS_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders of these pass over the channel that says how transparent a picture is."""


@contextmanager
def opened_container(path: Path) -> Iterator[Any]:
    """Open a file that may be a video.

    Raises:
        DataError: missing, empty, damaged, or of a form that is none of a video.
    """
    if not path.exists():
        raise DataError("there is no such file", where=path, mend="check the path")
    if path.is_dir():
        raise DataError("this is a folder, not a video file", where=path, mend="name a file inside it")
    if not path.is_file():
        raise DataError("this is no file, but a pipe or a device", where=path, mend="name a video file")
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=path, mend="copy or download the video again")
    try:
        # "file:" so that a colon in a name is part of it; a file must not make us read from the network.
        with little_memory(OPENING_BYTES):
            container = av.open(
                f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_errors="replace"
            )
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise unreadable(path, reason(error)) from error
    with container:
        names = container.format.name.split(",")
        form = next((REFUSED_FORMS[name] for name in names if name in REFUSED_FORMS), None)
        if form or names[0].endswith("_pipe"):
            raise unreadable(path, f"it is {form or 'a single picture'}, not a video")
        yield container


def picture_stream(path: Path, container: Any) -> Any:
    """The stream that is the video: the one flagged as default, then the one of most pictures, then the largest.

    A cover is never the video, nor is a single picture beside a stream of several.

    Raises:
        DataError: there is none, no decoder for it, or its pictures are too large.
    """
    streams = [s for s in container.streams.video if not s.disposition & NOT_THE_VIDEO]
    if not streams:
        sound = bool(container.streams.audio)
        if container.streams.video:
            raise unreadable(path, "it has only a cover picture" + " and sound" * sound)
        raise unreadable(path, "it has no video track" + ", only sound" * sound)
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise unreadable(path, "there is no decoder for its pictures")
    stream = streams[0] if len(streams) == 1 else _best_stream(path, streams)
    check_size(path, stream.codec_context.width, stream.codec_context.height)
    check_count(path, stream.frames)
    return stream


def decoder_of(stream: Any) -> Any:
    """The decoder for the pictures of a stream; one thread, and none of its pictures may be too large."""
    context = stream.codec_context
    is_transparent = any(
        name.lower() == "alpha_mode" and value == "1" for name, value in stream.metadata.items()
    )
    if is_transparent and context.name in DECODERS_WITH_ALPHA:
        try:
            context = av.CodecContext.create(DECODERS_WITH_ALPHA[context.name], "r")
        except ValueError:  # this FFmpeg was built without it
            context = stream.codec_context
    context.thread_count = 1
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return context


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse pictures that are too large. Raises DataError."""
    if width * height > MAX_PIXELS:
        raise DataError(
            f"its pictures are too large ({width}x{height})", where=path, mend="scale the video down"
        )


def is_whole(path: Path, form: str) -> bool:
    """Whether a file is as large as its outermost parts say, so that nothing was cut off; False where none can tell.

    Args:
        form: the name of its container's format.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if form == "avi":
            return 8 + int.from_bytes(head[4:8], "little") <= size
        if form == "flv":  # each part is followed by its length
            file.seek(max(size - 4, 0))
            length = int.from_bytes(file.read(4), "big")
            if not 11 < length < size - 4:
                return False
            file.seek(size - 4 - length)
            part = file.read(4)
            return part[0] in (8, 9, 18) and int.from_bytes(part[1:], "big") + 11 == length
    if form.startswith("matroska"):
        at = head.find(SEGMENT)
        first = head[at + 4] if 0 <= at < len(head) - 12 else 0
        width = 9 - first.bit_length()  # the leading zeros of the first byte say how many follow
        length = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ~(1 << 7 * width)
        is_known = first > 0 and length != (1 << 7 * width) - 1
        return is_known and at + 4 + width + length <= size
    return False


def check_count(path: Path, num_pictures: int) -> None:
    """Refuse more pictures than there is room for: a table can point to the same bytes many times. Raises DataError."""
    if num_pictures > path.stat().st_size:
        raise unreadable(path, f"it claims to hold {num_pictures} pictures")


def unreadable(path: Path, why: str) -> DataError:
    """The error for a file that is no good."""
    mend = "play it in a video player; copy it again, or convert it to MP4 with ffmpeg"
    return DataError(f"this video cannot be read ({why})", where=path, mend=mend)


def reason(error: Exception) -> str:
    """What FFmpeg or the system says is wrong."""
    if isinstance(error, MemoryError):
        return "it asks for too much memory"
    return str(getattr(error, "strerror", None) or error)


def _best_stream(path: Path, streams: Sequence[Any]) -> Any:
    if all(stream.frames for stream in streams):
        counts = {stream.index: stream.frames for stream in streams}
    else:
        status = path.stat()
        counts = dict(_num_packets(path, status.st_mtime_ns, status.st_size))

    def rank(stream: Any) -> tuple[int, bool, int, int]:
        count, context = counts.get(stream.index, 0), stream.codec_context
        is_default = bool(stream.disposition & Disposition.default)
        return min(count, 2), is_default, count, context.width * context.height

    return max(streams, key=rank)  # of equals, the first


@lru_cache(maxsize=64)
def _num_packets(path: Path, mtime_ns: int, num_bytes: int) -> Counter[int]:
    """How many pictures each stream has."""
    del mtime_ns, num_bytes  # another file has another count
    with opened_container(path) as container:
        try:
            return Counter(
                packet.stream.index for packet in container.demux(*container.streams.video) if packet.size
            )
        except (av.FFmpegError, OSError) as error:
            raise unreadable(path, reason(error)) from error
