"""Byte ranges of a file (RFC 9110, section 14): one range a request."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class ByteRange:
    """`start` to `end`, without `end`."""

    start: int
    end: int


class Unsatisfiable(ValueError):
    """The range lies wholly outside of the file."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range that a `Range` header asks for; None: send the whole file.

    A header that is not understood is ignored, as the standard asks; so is one with several ranges, which a
    server may ignore: no player needs them, and many or overlapping ones are an old way to exhaust a server.

    Raises:
        Unsatisfiable: nothing of the range is in the file.

    >>> parse_range("bytes=0-99", 1000), parse_range("bytes=-10", 1000), parse_range("bytes=990-", 1000)
    (ByteRange(start=0, end=100), ByteRange(start=990, end=1000), ByteRange(start=990, end=1000))
    >>> parse_range("bytes=0-1,2-3", 1000), parse_range("bytes=9-1", 1000), parse_range("lines=1-2", 1000)
    (None, None, None)
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        length = int(last)
        if length == 0 or size == 0:
            raise Unsatisfiable
        return ByteRange(max(size - length, 0), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, min(int(last) + 1, size) if last else size)
