"""Arrays in a safetensors file with a checksum, written atomically."""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dciml.files import atomic_path

CHECKSUM = "crc32"  # in the metadata: over everything else in the file
_SYSTEM_ERROR = re.compile(r"os error (\d+)")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a file. Raises OSError, also where safetensors has an error of its own for a full disk."""
    plain = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    sealed = dict(metadata) | {CHECKSUM: str(_checksum(plain, metadata))}
    with atomic_path(path) as temporary:
        before = set(path.parent.glob(".tmp??????"))
        try:
            save_file(plain, temporary, sealed)
        except SafetensorError as error:
            for left in set(path.parent.glob(".tmp??????")) - before:
                left.unlink(missing_ok=True)
            found = _SYSTEM_ERROR.search(str(error))
            code = int(found[1]) if found else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a file; one of before has no checksum, and is taken as it is.

    Raises:
        OSError: it cannot be read. SafetensorError, ValueError: it is damaged.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")  # a pipe would never end
    with safe_open(path, framework="np") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    known = metadata.pop(CHECKSUM, None)
    if known is not None and known != str(_checksum(arrays, metadata)):
        raise ValueError("it does not match its checksum")
    return arrays, metadata


def _checksum(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> int:
    """CRC-32 over names, types, shapes and bytes of all arrays, and the metadata."""
    crc = zlib.crc32(json.dumps(dict(metadata), sort_keys=True).encode())
    for key, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{key} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc
