"""FCPXML, which Final Cut Pro, DaVinci Resolve and Premiere (by a converter) read: moments on a timeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree as xml

from dciml.recipes.moments import plain_line
from dciml.recipes.timecode import Shot, edit_rate, real_rate
from dciml.video_streams import opened_container

VERSION = "1.8"  # the last one whose assets name their file in an attribute; later programs read it
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'


def fcpxml(shots: Sequence[Shot], title: str) -> str:
    """The moments one after another, at the rate of the first one's video; each file at its own rate.

    Times are exact: whole numbers of pictures, as the form demands.
    """
    root = xml.Element("fcpxml", version=VERSION)
    resources = xml.SubElement(root, "resources")
    event = xml.SubElement(xml.SubElement(root, "library"), "event", name="dciml")
    rate = edit_rate(shots[0].info.average_fps)
    formats: dict[tuple[Fraction, int, int], str] = {}
    assets: dict[Path, str] = {}
    sequence_format = _format(resources, formats, rate, shots[0])
    project = xml.SubElement(event, "project", name=title)
    counts = [shot.pictures(rate)[1] for shot in shots]
    sequence = xml.SubElement(
        project, "sequence", format=sequence_format, duration=_time(sum(counts), rate), tcStart="0s", tcFormat="NDF"
    )  # fmt: skip
    spine, place = xml.SubElement(sequence, "spine"), 0
    for shot, count in zip(shots, counts, strict=True):
        own = real_rate(shot.info.average_fps)
        if shot.info.path not in assets:
            assets[shot.info.path] = _asset(resources, _format(resources, formats, own, shot), own, shot)
        clip = xml.SubElement(
            spine, "asset-clip", name=plain_line(shot.called), ref=assets[shot.info.path],
            offset=_time(place, rate), start=_time(shot.pictures(own)[0], own), duration=_time(count, rate),
            tcFormat="NDF",
        )  # fmt: skip
        xml.SubElement(clip, "note").text = shot.note
        place += count
    xml.indent(root)
    return HEAD + xml.tostring(root, encoding="unicode") + "\n"


def _format(
    resources: xml.Element, formats: dict[tuple[Fraction, int, int], str], rate: Fraction, shot: Shot
) -> str:
    key = rate, shot.info.width, shot.info.height
    if key not in formats:
        formats[key] = f"r{len(resources) + 1}"
        xml.SubElement(
            resources, "format", id=formats[key], frameDuration=f"{rate.denominator}/{rate.numerator}s",
            width=str(shot.info.width), height=str(shot.info.height),
        )  # fmt: skip
    return formats[key]


def _asset(resources: xml.Element, form: str, rate: Fraction, shot: Shot) -> str:
    name = f"r{len(resources) + 1}"
    length = _time(math.ceil(shot.info.duration_seconds * rate - 1e-6), rate)
    with opened_container(shot.info.path) as container:
        has_sound = bool(container.streams.audio)
    xml.SubElement(
        resources, "asset", id=name, name=plain_line(shot.called), src=shot.url, start="0s", duration=length,
        format=form, hasVideo="1", hasAudio="1" if has_sound else "0",
    )  # fmt: skip
    return name


def _time(num_pictures: int, rate: Fraction) -> str:
    """A whole number of pictures as a share of seconds.

    >>> _time(100, Fraction(30000, 1001)), _time(0, Fraction(25))
    ('100100/30000s', '0s')
    """
    if num_pictures == 0:
        return "0s"
    return f"{num_pictures * rate.denominator}/{rate.numerator}s"
