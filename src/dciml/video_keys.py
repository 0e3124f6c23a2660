"""Only for speed: which packets need not be decoded, since no picture that is looked at depends on them.

A decoder that comes to a true key picture forgets all pictures before it. So what follows the last picture that is
looked at before such a key can be left out, and the others stay what they are, to the bit. A container's own mark does
not do: it is also set where pictures after it still refer to ones before it (open groups of pictures, intra refresh).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

KEEPING_PACKETS = 20
"""So many packets at the start of a file are never left out: they tell the decoder how pictures are ordered."""
HELD_BYTES = 32 * 1024**2
"""Packets that wait for the next key may take so much memory; more are decoded."""
START_CODE = b"\x00\x00\x01"
H264_PICTURES, H264_KEY, H264_PARAMETERS = range(1, 6), {5}, {7, 8, 13, 15}
HEVC_PICTURES, HEVC_KEYS, HEVC_PARAMETERS = range(32), {19, 20}, {32, 33, 34}
"""Types of units: pictures | those that need nothing before them | what decoding depends on until it is set anew."""


def without_tails(packets: Iterable[tuple[Any, bool]], decoder: Any) -> Iterator[tuple[Any, bool]]:
    """The packets of a track in their order, without those between a last wanted picture and the next true key.

    Args:
        packets: (packet, whether its picture is looked at).
        decoder: of h264, hevc, vp8, vp9, mjpeg or prores; of others nothing is left out.
    """
    held: list[tuple[Any, bool]] = []
    num_bytes = 0
    for number, (packet, wanted) in enumerate(packets):
        if held and packet.is_keyframe and is_true_key(packet, decoder):
            held, num_bytes = [], 0
        held.append((packet, wanted))
        num_bytes += packet.size
        if wanted or number < KEEPING_PACKETS or num_bytes > HELD_BYTES or _sets_parameters(packet, decoder):
            yield from held
            held, num_bytes = [], 0
    yield from held


def is_true_key(packet: Any, decoder: Any) -> bool:
    """Whether neither this picture nor any after it needs one before it, by what the packet itself says."""
    name = decoder.name
    if name in ("mjpeg", "prores"):
        return True
    if name in ("vp8", "vp9"):
        return packet.size > 0 and _is_key_head(name, memoryview(packet)[0])
    if name in ("h264", "hevc"):
        pictures, keys = (H264_PICTURES, H264_KEY) if name == "h264" else (HEVC_PICTURES, HEVC_KEYS)
        first = next((unit for unit in unit_types(packet, decoder) or () if unit in pictures), None)
        return first in keys
    return False


def _is_key_head(name: str, head: int) -> bool:
    if name == "vp8":
        return not head & 1
    is_plain = head >> 6 == 0b10 and head >> 4 & 0b11 != 0b11  # VP9; its last profile has other heads
    return is_plain and not head & 0b1100  # neither an old picture shown again nor one between keys


def _sets_parameters(packet: Any, decoder: Any) -> bool:
    """Whether pictures after the next key may need what this packet sets."""
    if decoder.name not in ("h264", "hevc"):
        return False
    if any(side.data_type == "new_extradata" for side in packet.iter_sidedata()):
        return True
    parameters = H264_PARAMETERS if decoder.name == "h264" else HEVC_PARAMETERS
    units = unit_types(packet, decoder)
    return units is None or not parameters.isdisjoint(units)


def unit_types(packet: Any, decoder: Any) -> list[int] | None:
    """The types of the units (NAL units) in a packet of H.264 or HEVC; None: its form is not understood."""
    data, is_hevc, types = memoryview(packet), decoder.name == "hevc", []
    length_bytes = _length_bytes(decoder.extradata or b"", is_hevc)
    place = 0
    if length_bytes:
        while place + length_bytes < len(data):
            types.append(data[place + length_bytes])
            place += length_bytes + int.from_bytes(data[place : place + length_bytes], "big")
        if place != len(data):
            return None
    else:
        content = bytes(data)
        while (place := content.find(START_CODE, place) + 3) > 2 and place < len(content):
            types.append(content[place])
    return [first >> 1 & 63 if is_hevc else first & 31 for first in types] or None


def _length_bytes(extradata: bytes, is_hevc: bool) -> int:
    """How many bytes say how long a unit is; 0: units follow start codes."""
    place = 21 if is_hevc else 4
    return (extradata[place] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > place else 0
