"""Models of `transformers` in local files: where they lie, which digest they have, how they are loaded.

Nothing is downloaded: a hub name must already be in the local cache. Weights are read from safetensors alone, never
from a pickle.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dciml.errors import ConfigError, DataError


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or does not have.

    Raises:
        ConfigError: says which there are.

    >>> check_device("cpu")
    """
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}; use cpu, cuda or cuda:N") from error
    if wanted.type not in ("cpu", "cuda") and not (
        wanted.type == "mps" and torch.backends.mps.is_available()
    ):
        raise ConfigError(f"there is no device {device!r} here; use cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        has = f"{count} of them" if count else "none; use cpu, or see what `dciml doctor` says"
        raise ConfigError(f"the device {device!r} is not here: torch finds {has}")


_DIGEST_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "1_Pooling/config.json")
_NEVER_USED = ("pooler.",)  # BERT's own pooler: some checkpoints leave it out, and no encoder here reads it

IMAGE_TEXT_KINDS = ("clip", "siglip", "siglip2", "metaclip_2", "altclip", "chinese_clip", "clipseg")
"""Models that embed pictures and sentences into one space, by `model_type`."""


def require_transformers() -> Any:
    """The package. Raises DataError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        mend = "pip install 'dciml[transformers]'"
        raise DataError("the package transformers is not installed", mend=mend) from error
    return transformers


def local_folder(name_or_folder: str | Path) -> Path:
    """The folder itself, or that of a hub name in the local cache.

    Raises:
        DataError: transformers is not installed, or there is neither.
    """
    require_transformers()
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download

    name = str(name_or_folder)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError) as error:
        is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
        fetch = f", or fetch it once with: hf download {name}"
        raise DataError(
            f"{name} is neither a folder nor a model in the local cache (nothing is downloaded here)",
            mend="check the path" + ("" if is_path else fetch),
        ) from error


def model_label(name_or_folder: str | Path, folder: Path) -> str:
    """What to call a model in the name of its encoder: the hub name, or the folder's last part."""
    return folder.name if Path(name_or_folder).expanduser().is_dir() else str(name_or_folder)


def folder_digest(folder: Path) -> str:
    """Twelve hexadecimal digits that change with the weights, the settings or the tokenizer."""
    files = sorted({path for pattern in _DIGEST_PATTERNS for path in folder.glob(pattern) if path.is_file()})
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.relative_to(folder)}\0".encode())
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:12]


def load_config(folder: Path, what: str) -> Any:
    """A model's settings. Raises DataError: none, or of a kind that this transformers does not know."""
    transformers = require_transformers()
    with loading(folder, what):
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if not any(folder.glob("*.safetensors")):
        pickled = "; a pickle such as pytorch_model.bin is never loaded" if any(folder.glob("*.bin")) else ""
        raise DataError(
            f"there are no weights (model.safetensors){pickled}",
            where=folder,
            mend="fetch the model in that form, or save it with save_pretrained",
        )
    return config


def load_weights(model_class: Any, folder: Path, **how: Any) -> Any:
    """A model in evaluation mode, without gradients.

    Raises:
        DataError: weights are missing; transformers would fill them with random numbers.
    """
    os.environ.setdefault(
        "HF_DEACTIVATE_ASYNC_LOAD", "1"
    )  # loading in threads gains nothing for models of this size
    with quiet():
        model, report = model_class.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, use_safetensors=True, **how
        )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_NEVER_USED))
    if missing:
        raise DataError(
            f"the model lacks weights, {missing[0]} among them", where=folder, mend="fetch the model again"
        )
    return model.eval().requires_grad_(False)


@contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Turn what `transformers` raises while it loads into an error that says what cannot be loaded from where."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"no {what} can be loaded ({reason})",
            where=folder,
            mend="name a folder with config.json, model.safetensors and the files of its tokenizer or image processor",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the loader's progress bar and its report of unused weights off the user's terminal."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
