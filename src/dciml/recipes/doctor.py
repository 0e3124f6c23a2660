"""What of this machine would keep dciml from working, and how to mend it. Nothing is sent or downloaded.

Each line comes of a check that was made: packages are loaded, products computed, pictures written and read back, files
written, rows read.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from dciml.explain import explained
from dciml.files import remove_leftovers
from dciml.folders import WEIGHTS_FILE, kind_of
from dciml.homes import home_meant, index_in_use, taught_folder

State = Literal["ok", "warn", "fail"]

GIGA = 1e9
ENOUGH_MEMORY, LEAST_MEMORY = 4 * GIGA, 0.7 * GIGA
ENOUGH_DISK, LEAST_DISK = 5 * GIGA, 0.2 * GIGA
CODECS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
"""Format of a video file → its encoder in FFmpeg."""
LEVELS, TOLERANCE = (0, 100, 200), 20.0
"""Grey of the pictures that are written, and by how much what is read may differ."""
EXTRAS = {
    "transformers": "CLIP, SigLIP, RoBERTa and other encoders of transformers",
    "minilm": "the text encoder `minilm`",
    "speech": "what is said in videos (`--speech`)",
    "hub": "models on the Hugging Face Hub (`dciml.hub`)",
    "serve": "`dciml serve` and its page",
    "mcp": "`dciml mcp`, for programs that ask by the Model Context Protocol",
    "mteb": "models in evaluations of mteb (`dciml.mteb`)",
    "milvus": "an index in Milvus",
    "ray": "extraction under Ray",
    "export": "`dciml export` for editing programs (edl, otio)",
}


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and what to do about it (empty when all is well).

    `fail` means that the main job (videos → features → training → search) cannot work here; or, where `folder` is
    set, that what lies in this folder is damaged.
    """

    name: str
    state: State
    found: str
    mend: str = ""
    folder: str = ""


def run_checks(folder: Path | None = None, folders: tuple[Path, ...] = ()) -> list[Check]:
    """All checks, in the order of a screen; one that breaks becomes a line itself.

    Args:
        folder: where data and models are to be written; None: the current folder.
        folders: what lies in these, and in the folders in these, is read; and what killed processes left there is
            removed, or where there are none from `folder`.
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
        ("folders", lambda: check_folders(folders)),
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
    return all(check.state != "fail" for check in checks if not check.folder)


def all_whole(checks: list[Check]) -> bool:
    """Whether nothing in the folders that were named is damaged."""
    return all(check.state != "fail" for check in checks if check.folder)


def check_python() -> Iterator[Check]:
    """Version and word size."""
    bits = 8 * struct.calcsize("P")
    found = f"{platform.python_version()}, {bits} bit, {sys.executable}"
    right = sys.version_info >= (3, 11) and bits == 64
    yield Check(
        "Python", "ok" if right else "fail", found, "" if right else "use a 64-bit Python 3.11 or newer"
    )


def check_packages() -> Iterator[Check]:
    """Every required package must be there in a version that fits, and load."""
    found, wrong = _looked_at(None)
    mend = "" if not wrong else "install dciml again: pip install --upgrade dciml"
    told = "; ".join(wrong) or f"{found} are required, and all load"
    yield Check("packages", "fail" if wrong else "ok", told, mend)


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

        _compute(torch, "cpu")
    except Exception as error:  # a broken installation can raise anything, OSError of a library included
        yield Check("torch", "fail", f"does not work: {error}", "install torch 2.13 again")
        return
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _check_gpu(torch, number)
    elif Path("/proc/driver/nvidia/version").exists():
        why = "this torch is a build without CUDA" if torch.version.cuda is None else "torch cannot use it"
        mend = (
            "install a CUDA build of torch 2.13 that fits the driver; until then everything runs on the CPU"
        )
        yield Check("CUDA", "warn", f"there is an NVIDIA driver, but {why}", mend)
    else:
        yield Check("CUDA", "ok", "no NVIDIA GPU; everything runs on the CPU")


def check_codecs() -> Iterator[Check]:
    """Write three pictures in each format, read them back, and compare."""
    for codec, encoder in CODECS.items():
        reads, writes = _can_read(codec), True
        try:
            with _silent():
                reads = _round_trip(encoder)
        except Exception as error:  # FFmpeg's errors, or no such encoder
            writes = False
            reason = str(error)
        if not reads:
            state: State = "fail" if codec == "h264" else "warn"
            yield Check(
                codec,
                state,
                "cannot be read as it was written" if writes else "cannot be read",
                "install PyAV from PyPI: pip install --force-reinstall av",
            )
        elif not writes:
            needed = codec == "h264"
            mend = "`dciml demo` cannot draw its videos; install PyAV from PyPI" if needed else ""
            found = f"not written ({reason}); there is a decoder, which could not be tried"
            yield Check(codec, "warn" if needed else "ok", found, mend)
        else:
            yield Check(codec, "ok", "written, and read back alike")


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
    """Free space, and whether a file that is written there can be read back."""
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free >= ENOUGH_DISK else "warn" if free >= LEAST_DISK else "fail"
    mend = "" if state == "ok" else "free some space, or work in a folder on another disk"
    yield Check("disk", state, f"{free / GIGA:.1f} GB free at {folder}", mend)
    why = _cannot_be_written(folder)
    if why:
        yield Check(
            "folder", "warn", f"{folder} cannot be written to ({why})", "work in a folder of your own"
        )


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
    """Optional parts, loaded: what is missing is no fault, but is named with what it is for."""
    for extra, purpose in EXTRAS.items():
        count, wrong = _looked_at(extra)
        if not count and not wrong:
            wrong = ["this installation of dciml is too old to know it"]
        mend = f'for {purpose}: pip install "dciml[{extra}]"' if wrong else ""
        yield Check(
            f"extra {extra}", "warn" if wrong else "ok", "; ".join(wrong) or "installed, and loads", mend
        )


def check_models() -> Iterator[Check]:
    """Whether models may be downloaded, and which are there already; the heads of their weights are read."""
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
                  for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))  # fmt: skip
    cached = cached_models()
    found = "offline (HF_HUB_OFFLINE)" if offline else "may be asked (whether it answers was not tried)"
    mend = "unset HF_HUB_OFFLINE once to download a model; or use the built-in encoders or a local folder"
    stuck = offline and not cached
    yield Check(
        "hub",
        "warn" if stuck else "ok",
        f"{found}; no command downloads anything unasked",
        mend if stuck else "",
    )
    listed = ", ".join(f"{name} ({size / GIGA:.2f} GB)" for name, size in cached.items())
    broken = [f"{name} ({why})" for name in cached if (why := _fault_of_cached(name))]
    mend = "fetch it again: hf download NAME" if broken else ""
    found = f"{hub_cache()}: {listed or 'empty'}" + (f"; not whole: {', '.join(broken)}" if broken else "")
    yield Check("model cache", "warn" if broken else "ok", found, mend)


def check_folders(folders: Iterable[Path]) -> Iterator[Check]:
    """Stores, data, models and indexes in folders, and in the folders in these: everything in them is read.

    Of a home, or videos with a home beside them, the taught model that is in use and its index are read as well.
    """
    for folder in dict.fromkeys(place for named in folders for place in _places(named)):
        kind = kind_of(folder)
        if kind in READERS:
            yield _check_folder(folder, kind)


def _places(named: Path) -> list[Path]:
    places = [named, *_subfolders(named)]
    if (home := home_meant(named)) is not None:
        places += [home, *_subfolders(home)]
        if (taught := taught_folder(home).folder) is not None:
            places += _subfolders(taught)
    return places


def _check_folder(folder: Path, kind: str) -> Check:
    try:
        found, damages = READERS[kind](folder)
    except Exception as error:  # damaged files raise anything; the reason is what is asked for here
        known = explained(error)
        found, damages = "", [str(known) if known is not None else f"{type(error).__name__}: {error}"]
    if not damages:
        return Check(kind, "ok", f"{folder}: {found}", folder=str(folder))
    more = f", and {len(damages) - 3} more" if len(damages) > 3 else ""
    told = f"{folder}: {'; '.join(damages[:3])}{more}"
    return Check(kind, "fail", told, "make it again, or bring back a copy", str(folder))


def _read_store(folder: Path) -> tuple[str, list[str]]:
    from dciml.features import FeatureStore

    store = FeatureStore.open(folder)
    return f"the rows of {len(store)} videos were read, and their checksums hold", store.verify()


def _read_data(folder: Path) -> tuple[str, list[str]]:
    from dciml.datasets import DataFolder

    data = DataFolder.open(folder)
    sentences = sum(len(data.queries(split)) for split in data.splits)
    return f"{sentences} sentences and the rows of {len(data.store)} videos were read", data.store.verify()


def _read_index(folder: Path) -> tuple[str, list[str]]:
    from dciml.index import verify_index

    return "all of it was read, and its checksums hold", verify_index(folder)


def _read_model(folder: Path) -> tuple[str, list[str]]:
    from dciml.model_folder import load_model

    if not (folder / WEIGHTS_FILE).exists():
        return "there are no weights yet", []
    load_model(folder)
    return "its settings, words and weights were loaded", []


def _read_home(folder: Path) -> tuple[str, list[str]]:
    wrong = taught_folder(folder).wrong
    if wrong:
        return "", [wrong]
    return f"{index_in_use(folder).relative_to(folder)} is in use", []


READERS: dict[str, Callable[[Path], tuple[str, list[str]]]] = {
    "a feature store": _read_store,
    "a data folder": _read_data,
    "an index": _read_index,
    "a model folder": _read_model,
    "the home of a folder of videos": _read_home,
}
"""Kind of folder → reads all of it; gives what was read, and what is damaged."""


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


def _fault_of_cached(model: str) -> str | None:
    """Why a model in the cache cannot be loaded, as far as its files and the heads of its weights tell."""
    from safetensors import SafetensorError, safe_open

    folder = hub_cache() / f"models--{model.replace('/', '--')}"
    if any((folder / "blobs").glob("*.incomplete")):
        return "a download was broken off"
    snapshots = [path for path in (folder / "snapshots").glob("*") if (path / "config.json").is_file()]
    if not snapshots:
        return "there is no config.json"
    files = [path for path in snapshots[-1].rglob("*") if path.suffix in (".safetensors", ".bin")]
    if not files:
        return "there are no weights"
    for path in files:
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="numpy"):
                    pass
            elif not path.stat().st_size:
                return f"{path.name} is empty"
        except (OSError, SafetensorError) as error:
            return f"{path.name}: {error}"
    return None


def _cannot_be_written(folder: Path) -> str | None:
    """Why; None: a file was written and read back."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"dciml")
            file.seek(0)
            return None if file.read() == b"dciml" else "what was written is not what is read"
    except OSError as error:
        return error.strerror or str(error)


def _compute(torch: Any, device: str) -> None:
    """A small product, there and back. Raises RuntimeError where it is wrong."""
    left = torch.arange(12.0).reshape(3, 4).to(device)
    found = left.matmul(left.T).cpu().tolist()
    if found != [[14.0, 38.0, 62.0], [38.0, 126.0, 214.0], [62.0, 214.0, 366.0]]:
        raise RuntimeError(f"a small product is wrong: {found}")


def _check_gpu(torch: Any, number: int) -> Check:
    name = f"{torch.version.cuda}: {_gpu(torch.cuda.get_device_properties(number))}"
    try:
        _compute(torch, f"cuda:{number}")
    except Exception as error:  # of the driver, in any form
        mend = "see what nvidia-smi says; with --device cpu everything runs without it"
        return Check("CUDA", "warn", f"{name} is there, but does not compute: {error}", mend)
    return Check("CUDA", "ok", f"{name}, a product was computed")


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


def _looked_at(extra: str | None) -> tuple[int, list[str]]:
    """The requirements of dciml, or of one of its extras: how many, and what is missing, does not fit or load."""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    count = 0
    for line in importlib.metadata.requires("dciml") or ():
        requirement = Requirement(line)
        of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if of_extra != (extra is not None):
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra or ""}):
            continue
        count += 1
        if requirement.name == "dciml":  # an extra that takes others in
            for other in sorted(requirement.extras):
                more, faults = _looked_at(other)
                count, wrong = count + more, wrong + faults
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        elif why := _cannot_be_loaded(requirement.name):
            wrong.append(f"{requirement.name} does not load ({why})")
    return count, wrong


@lru_cache(maxsize=1)
def _modules_by_package() -> dict[str, list[str]]:
    from packaging.utils import canonicalize_name

    found: dict[str, list[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            found.setdefault(canonicalize_name(package), []).append(module)
    return found


def _cannot_be_loaded(package: str) -> str | None:
    """Why its modules cannot be imported; None: they were."""
    from packaging.utils import canonicalize_name

    modules = _modules_by_package().get(canonicalize_name(package), [])
    for module in sorted(modules):
        if module.startswith("_") or not module.isidentifier():
            continue
        try:
            with warnings.catch_warnings(), _silent():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except Exception as error:  # a broken installation can raise anything
            return f"{type(error).__name__}: {error}"[:200]
    return None


def _can_read(codec: str) -> bool:
    import av

    try:
        av.codec.Codec(codec, "r")
    except ValueError:  # UnknownCodecError is one
        return False
    return True


def _round_trip(encoder: str) -> bool:
    """Whether three pictures come back as they were, nearly."""
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(encoder, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.thread_count = 1
        for level in LEVELS:
            picture = np.full((64, 64, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as written:
        pictures = [picture.to_ndarray(format="rgb24") for picture in written.decode(video=0)]
    return len(pictures) == len(LEVELS) and all(
        abs(float(picture.mean()) - level) < TOLERANCE
        for picture, level in zip(pictures, LEVELS, strict=True)
    )


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
