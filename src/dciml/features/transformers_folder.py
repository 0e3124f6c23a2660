"""Loading a text model of `transformers` from local files: which class, which pooling, which digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from dciml.errors import DataError
from dciml.files import read_json

_CLIP_TYPES = ("clip", "clip_text_model")
_SHIFTED_POSITION_TYPES = ("roberta", "xlm-roberta", "camembert")  # positions begin after the padding id
_DIGEST_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "1_Pooling/config.json")


class Pooling(Enum):
    """How a model makes its own sentence vector."""

    NONE = "it has none that was trained to be compared"
    MEAN = "mean over tokens"
    FIRST_TOKEN = "the first token"
    PROJECTED = "CLIP's projection into the space of pictures"


@dataclass(frozen=True)
class LoadedText:
    """A model, ready to run, and what the encoder must know of it."""

    model: Any
    tokenizer: Any
    pooling: Pooling
    label: str
    digest: str
    hidden_width: int
    num_layers: int
    max_tokens: int
    unknown_id: int


def load_text_model(name_or_folder: str | Path, device: str) -> LoadedText:
    """Load a text model from a folder or from the local hub cache, in float32 and evaluation mode.

    Raises:
        DataError: transformers is not installed, the model is missing, or it is of a kind not known here.
    """
    try:
        import transformers
    except ImportError as error:
        mend = "pip install 'dciml[transformers]'"
        raise DataError("the package transformers is not installed", mend=mend) from error

    folder = _local_folder(str(name_or_folder))
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, add_prefix_space=True
            )
            model = _load_weights(config, folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"no text model can be loaded ({reason})",
            where=folder,
            mend="name a folder with config.json, tokenizer.json and model.safetensors",
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise DataError("the model has no fast tokenizer", where=folder, mend="add its tokenizer.json")
    text = getattr(model.config, "text_config", model.config)
    return LoadedText(
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=tokenizer,
        pooling=_pooling(config, folder),
        label=folder.name if Path(name_or_folder).is_dir() else str(name_or_folder),
        digest=_digest(folder),
        hidden_width=int(text.hidden_size),
        num_layers=int(text.num_hidden_layers),
        max_tokens=_max_tokens(text, tokenizer),
        unknown_id=tokenizer.unk_token_id if tokenizer.unk_token_id is not None else 0,
    )


def _local_folder(name_or_folder: str) -> Path:
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name_or_folder, local_files_only=True))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name_or_folder} is neither a folder nor a model in the local cache",
            mend=f"check the path, or fetch it once with: hf download {name_or_folder}",
        ) from error


def _load_weights(config: Any, folder: Path) -> Any:
    import torch
    import transformers

    model_class: Any = transformers.AutoModel
    how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    if config.model_type in _CLIP_TYPES:
        model_class = transformers.CLIPTextModelWithProjection
        if hasattr(config, "text_config"):
            # The width of the shared space stands beside the two towers' settings, not inside them.
            config.text_config.projection_dim = config.projection_dim
            how["config"] = config.text_config
    elif hasattr(config, "vision_config"):
        raise DataError(
            f"a model of the kind {config.model_type!r} is not supported as text encoder",
            where=folder,
            mend="use CLIP, or a text-only model",
        )
    model, report = model_class.from_pretrained(folder, output_loading_info=True, **how)
    # transformers fills absent weights with random numbers; only BERT's own pooler goes unused here.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise DataError(
            f"the model lacks weights, {missing[0]} among them", where=folder, mend="fetch the model again"
        )
    return model


def _pooling(config: Any, folder: Path) -> Pooling:
    if config.model_type in _CLIP_TYPES:
        return Pooling.PROJECTED
    path = folder / "1_Pooling" / "config.json"  # where sentence-transformers writes it
    if not path.is_file():
        return Pooling.NONE
    settings = read_json(path)
    if settings.get("pooling_mode_mean_tokens"):
        return Pooling.MEAN
    return Pooling.FIRST_TOKEN if settings.get("pooling_mode_cls_token") else Pooling.NONE


def _max_tokens(config: Any, tokenizer: Any) -> int:
    positions = int(getattr(config, "max_position_embeddings", 512))
    if config.model_type in _SHIFTED_POSITION_TYPES:
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))


def _digest(folder: Path) -> str:
    files = sorted({path for pattern in _DIGEST_PATTERNS for path in folder.glob(pattern)})
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.relative_to(folder)}\0".encode())
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:12]


@contextmanager
def _quiet() -> Iterator[None]:
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
