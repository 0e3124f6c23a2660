"""Files that a user hands in: opened only where they are regular files of a size that makes sense; text decoded."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import stat
from pathlib import Path

from dciml.errors import DataError

MEBIBYTE = 1 << 20
MAX_TEXT_BYTES = 2048 * MEBIBYTE
"""Annotations, tables and the like; those of the largest published set take some 100 MiB."""
MAX_SETTINGS_BYTES = 4 * MEBIBYTE
"""Settings of a run."""
MAX_CAPTION_BYTES = 64 * MEBIBYTE
"""Captions of one video."""

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_MIN_COHERENCE = 0.45  # how much the letters are those of a language, as charset-normalizer counts it, 0 to 1
_MAX_CHAOS = 0.05  # how unlikely the letters stand beside each other
_CLEAR_LEAD = 0.05  # of coherence, over encodings that read the letters otherwise
_LOG = logging.getLogger(__name__)


def check_input_file(path: Path) -> int:
    """The bytes of a file that is to be read.

    Raises:
        DataError: missing, a folder, not readable, or no regular file: reading a pipe or a device might never end.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise DataError("this is no name of a file", where=repr(str(path)), mend="check the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise DataError("this is a folder, not a file", where=path, mend="name a file inside it")
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            mend = "write its content into a file, and name that"
            raise DataError(f"this is {name}, not a regular file", where=path, mend=mend)
    if not os.access(path, os.R_OK):
        raise DataError("permission denied", where=path, mend="make the file readable")
    return found.st_size


def read_input(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a regular file, up to a number of bytes.

    Raises:
        DataError: as `check_input_file`, or the file is larger.
    """
    size = check_input_file(path)
    if size > max_bytes:
        what = f"the file has {size:,} bytes; at most {max_bytes:,} are read for a file of this kind"
        raise DataError(what, where=path, mend="check that this is the right file, or split it")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_decoded(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A text file of whatever encoding: what its byte order mark says, else UTF-8, else what its letters tell.

    A guess is logged as a warning. A guess that is not clear is an error, since wrong letters would go unnoticed.

    Raises:
        DataError: as `read_input`; or the file is no text, or its encoding cannot be told with confidence.
    """
    content = read_input(path, max_bytes)
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return _without_nul(_decode(content, encoding, path), path)
    try:
        return _without_nul(content.decode("utf-8"), path)
    except UnicodeDecodeError:
        encoding = _guess_encoding(content, path)
        text = _decode(content, encoding, path)
        _LOG.warning("%s: not UTF-8; read as %s", path, encoding)
        return text


def _guess_encoding(content: bytes, path: Path) -> str:
    if b"\0" in content:
        raise DataError("this is not a text file", where=path, mend="save it as UTF-8 text")
    from charset_normalizer import from_bytes

    found = sorted(from_bytes(content), key=lambda match: -match.coherence)
    if found and found[0].coherence >= _MIN_COHERENCE and found[0].chaos <= _MAX_CHAOS:
        best = found[0]
        rivals = [m for m in found[1:] if m.coherence > best.coherence - _CLEAR_LEAD and str(m) != str(best)]
        # Signs such as † and — amid words are the letters of DOS and Mac OS, read wrongly.
        only_letters = all(sign.isalpha() for sign in str(best) if ord(sign) > 127)
        if not rivals and only_letters:
            return best.encoding
    first = next(number for number, line in enumerate(content.split(b"\n"), 1) if not _is_utf8(line))
    likely = " or ".join(dict.fromkeys(match.encoding for match in found[:2]))
    perhaps = f" (perhaps {likely})" if likely else ""
    raise _unknown_encoding(
        path, f"line {first} is not UTF-8, and no other encoding fits it clearly{perhaps}"
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decode(content: bytes, encoding: str, path: Path) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _unknown_encoding(path, f"it is not whole {encoding}") from error


def _without_nul(text: str, path: Path) -> str:
    if "\0" in text:
        raise DataError("this is not a text file", where=path, mend="save it as UTF-8 text")
    return text


def _unknown_encoding(path: Path, reason: str) -> DataError:
    return DataError(f"the text's encoding cannot be told: {reason}", where=path, mend="save it as UTF-8")


def _unreadable(path: Path, error: OSError) -> DataError:
    if error.errno == errno.ENOENT:
        return DataError("there is no such file", where=path, mend="check the path")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DataError("permission denied", where=path, mend="make the file readable")
    return DataError(f"the file cannot be read ({error.strerror})", where=path, mend="check the file")
