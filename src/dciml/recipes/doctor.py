"""What of this machine would keep dciml from working, and how to mend it. Nothing is sent or downloaded."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dciml.files import remove_leftovers

State = Literal["ok", "warn", "fail"]

GIGA = 1e9
ENOUGH_MEMORY, LEAST_MEMORY = 4 * GIGA, 0.7 * GIGA
ENOUGH_DISK, LEAST_DISK = 5 * GIGA, 0.2 * GIGA
CODECS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
"""Format of a video file → its encoder in FFmpeg."""
EXTRAS = {
    "transformers": "CLIP, SigLIP, RoBERTa and other encoders of transformers",
    "minilm": "the text encoder `minilm`",
    "hub": "models on the Hugging Face Hub (`dciml.hub`)",
    "serve": "`dciml serve` and its page",
    "mcp": "`dciml mcp`, for programs that ask by the Model Context Protocol",
    "milvus": "an index in Milvus",
    "ray": "extraction under Ray",
    "export": "`dciml export` for editing programs (edl, otio)",
}


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and what to do about it (empty when all is well).

    `fail` means that the main job (videos → features → training → search) cannot work here.
    """

    name: str
    state: State
    found: str
    mend: str = ""


def run_checks(folder: Path | None = None, folders: tuple[Path, ...] = ()) -> list[Check]:
    """All checks, in the order of a screen; one that breaks becomes a line itself.

    Args:
        folder: where data and models are to be written; None: the current folder.
        folders: from where what killed processes left is removed; (): from `folder`.
    """
    folder = folder or Path.cwd()
    groups: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("Python", check_python),
        ("packages", check_packages),
        ("torch", check_torch),
        ("video codecs", check_codecs),
        ("memory", check_memory),
        ("disk", lambda: check_disk(folder)),
        ("leftovers", lambda: check_leftovers(folders or (folder,))),
        ("processor", check_processor),
        ("extras", check_extras),
        ("models", check_models),
    )
    checks: list[Check] = []
    for name, group in groups:
        try:
            checks.extend(group())
        except Exception as error:  # a check that breaks is itself a finding, and the others go on
            checks.append(Check(name, "warn", f"the check broke: {error!r}", "report this as a bug of dciml"))
    return checks


def can_work(checks: list[Check]) -> bool:
    """Whether the main job can work."""
    return all(check.state != "fail" for check in checks)


def check_python() -> Iterator[Check]:
    """Version and word size."""
    bits = 8 * struct.calcsize("P")
    found = f"{platform.python_version()}, {bits} bit, {sys.executable}"
    right = sys.version_info >= (3, 11) and bits == 64
    yield Check(
        "Python", "ok" if right else "fail", found, "" if right else "use a 64-bit Python 3.11 or newer"
    )


def check_packages() -> Iterator[Check]:
    """Every required package must be there in a version that fits."""
    wrong = _unmet(None)
    mend = "" if not wrong else "install dciml again: pip install --upgrade dciml"
    yield Check("packages", "fail" if wrong else "ok", "; ".join(wrong) or "all that are required", mend)


def check_leftovers(folders: Iterable[Path]) -> Iterator[Check]:
    """Remove what killed processes left half-written in folders, and in the folders in these."""
    places = [place for folder in folders for place in (folder, *_subfolders(folder))]
    removed = [str(path) for place in places for path in remove_leftovers(place)]
    found = f"removed what killed processes left: {', '.join(removed)}" if removed else "none"
    yield Check("leftovers", "ok", found)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def check_torch() -> Iterator[Check]:
    """Does it load and compute; is there a GPU that it cannot use?"""
    try:
        import torch

        float(torch.ones(2, 2).matmul(torch.ones(2, 2)).sum())
    except Exception as error:  # a broken installation can raise anything, OSError of a library included
        yield Check("torch", "fail", f"does not work: {error}", "install torch 2.13 again")
        return
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        names = ", ".join(_gpu(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count()))
        yield Check("CUDA", "ok", f"{torch.version.cuda}: {names}")
    elif Path("/proc/driver/nvidia/version").exists():
        why = "this torch is a build without CUDA" if torch.version.cuda is None else "torch cannot use it"
        mend = (
            "install a CUDA build of torch 2.13 that fits the driver; until then everything runs on the CPU"
        )
        yield Check("CUDA", "warn", f"there is an NVIDIA driver, but {why}", mend)
    else:
        yield Check("CUDA", "ok", "no NVIDIA GPU; everything runs on the CPU")


def check_codecs() -> Iterator[Check]:
    """Write three pictures in each format and read them back."""
    for codec, encoder in CODECS.items():
        reads, writes = _can_read(codec), True
        try:
            with _silent():
                reads = _round_trip(encoder) == 3
        except Exception as error:  # FFmpeg's errors, or no such encoder
            writes = False
            reason = str(error)
        if not reads:
            state: State = "fail" if codec == "h264" else "warn"
            yield Check(
                codec, state, "cannot be read", "install PyAV from PyPI: pip install --force-reinstall av"
            )
        elif not writes:
            needed = codec == "h264"
            mend = "`dciml demo` cannot draw its videos; install PyAV from PyPI" if needed else ""
            yield Check(codec, "warn" if needed else "ok", f"read, not written ({reason})", mend)
        else:
            yield Check(codec, "ok", "read and written")


def check_memory() -> Iterator[Check]:
    """What is free, and a limit of the container if there is one."""
    free = free_memory()
    if free is None:
        yield Check("memory", "ok", "not known on this system")
        return
    state: State = "ok" if free >= ENOUGH_MEMORY else "warn" if free >= LEAST_MEMORY else "fail"
    mend = "" if state == "ok" else "close other programs, or train with a smaller training.batch_videos"
    yield Check("memory", state, f"{free / GIGA:.1f} GB free", mend)


def check_disk(folder: Path) -> Iterator[Check]:
    """Free space, and whether the folder can be written to."""
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free >= ENOUGH_DISK else "warn" if free >= LEAST_DISK else "fail"
    mend = "" if state == "ok" else "free some space, or work in a folder on another disk"
    yield Check("disk", state, f"{free / GIGA:.1f} GB free at {folder}", mend)
    if not os.access(folder, os.W_OK):
        yield Check("folder", "warn", f"{folder} cannot be written to", "work in a folder of your own")


def check_processor() -> Iterator[Check]:
    """Threads, and how busy they are."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS")
    said = f", OMP_NUM_THREADS={wanted}" if wanted else ""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > 1.5 * usable
    mend = "other programs use the processor: everything takes longer" if busy else ""
    if wanted and wanted.isdecimal() and int(wanted[:20]) > usable:
        busy, mend = (
            True,
            f"set OMP_NUM_THREADS to at most {usable}: more threads than that slow each other down",
        )
    yield Check("processor", "warn" if busy else "ok", f"{usable} threads, load {load:.1f}{said}", mend)


def check_extras() -> Iterator[Check]:
    """Optional parts: what is missing is no fault, but is named with what it is for."""
    for extra, purpose in EXTRAS.items():
        wrong = _unmet(extra)
        mend = f'for {purpose}: pip install "dciml[{extra}]"' if wrong else ""
        yield Check(f"extra {extra}", "warn" if wrong else "ok", "; ".join(wrong) or "installed", mend)


def check_models() -> Iterator[Check]:
    """Whether models may be downloaded, and which are there already."""
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
                  for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))  # fmt: skip
    cached = cached_models()
    found = "offline (HF_HUB_OFFLINE)" if offline else "can be asked by `hf download NAME`"
    mend = "unset HF_HUB_OFFLINE once to download a model; or use the built-in encoders or a local folder"
    stuck = offline and not cached
    yield Check(
        "hub", "warn" if stuck else "ok", f"{found}; no command downloads anything", mend if stuck else ""
    )
    listed = ", ".join(f"{name} ({size / GIGA:.2f} GB)" for name, size in cached.items())
    yield Check("model cache", "ok", f"{hub_cache()}: {listed or 'empty'}")


def hub_cache() -> Path:
    """Where the libraries of the hub keep their models."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub")


def cached_models() -> dict[str, int]:
    """Models in the cache with their size in bytes."""
    found = {}
    for folder in sorted(hub_cache().glob("models--*")):
        files = (file for file in (folder / "blobs").glob("*") if file.is_file())
        found[folder.name.removeprefix("models--").replace("--", "/")] = sum(f.stat().st_size for f in files)
    return found


def free_memory() -> int | None:
    """Bytes that a program can still use, within the container's limit; None where the system does not say."""
    information = Path("/proc/meminfo")
    if not information.exists():
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", information.read_text())
    free = int(match.group(1)) * 1024 if match else None
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if free is not None and limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def _unmet(extra: str | None) -> list[str]:
    """Requirements of dciml, or of one of its extras, that are missing or of a version that does not fit."""
    from packaging.requirements import Requirement

    wrong = []
    for line in importlib.metadata.requires("dciml") or ():
        requirement = Requirement(line)
        of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if of_extra != (extra is not None):
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra or ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return wrong


def _can_read(codec: str) -> bool:
    import av

    try:
        av.codec.Codec(codec, "r")
    except ValueError:  # UnknownCodecError is one
        return False
    return True


def _round_trip(encoder: str) -> int:
    """How many of three pictures come back."""
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(encoder, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.thread_count = 1
        for level in (0, 100, 200):
            picture = np.full((64, 64, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as written:
        return len(list(written.decode(video=0)))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what encoders of other languages write to the error stream off the screen."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _gpu(properties: object) -> str:
    name, memory = getattr(properties, "name", "GPU"), getattr(properties, "total_memory", 0)
    return f"{name} ({memory / GIGA:.0f} GB)"
