"""A text model of `transformers`, ready to run: its class, the tokens it reads, the vector it has of a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dciml.errors import DataError
from dciml.features.devices import check_device
from dciml.features.transformers_folder import (
    IMAGE_TEXT_KINDS,
    folder_digest,
    load_config,
    load_weights,
    loading,
    local_folder,
    model_label,
    require_transformers,
)
from dciml.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

TWO_TOWER_KINDS = (*IMAGE_TEXT_KINDS, "xclip")
_CLIP_TEXT_KIND = "clip_text_model"  # CLIP's text side in a folder of its own
_SIGLIP_KINDS = ("siglip", "siglip2")
# Positions begin after the padding id.
_SHIFTED_POSITION_KINDS = ("roberta", "xlm-roberta", "camembert", "altclip_text_model")


class Pooling(Enum):
    """How a model makes its own sentence vector."""

    NONE = "it has none that was trained to be compared"
    MEAN = "mean over tokens"
    FIRST_TOKEN = "the first token"
    PROJECTED = "the projection into the space of pictures or videos"


@dataclass(frozen=True)
class TextModel:
    """A model with its tokenizer, and what the encoder must know of them.

    Attributes:
        kind: `model_type` of the settings.
        label: what to call it in a name.
        digest: of its files.
        hidden_width: of the token states.
        max_tokens: how many it reads, special ones included.
        unknown_id: the token for what the tokenizer does not know.
    """

    kind: str
    model: Any
    tokenizer: Any
    pooling: Pooling
    label: str
    digest: str
    hidden_width: int
    num_layers: int
    max_tokens: int
    unknown_id: int

    @property
    def reads_padding(self) -> bool:
        """SigLIP was trained on lower-case text filled up to the full length, without a mask: padding is part of it."""
        return self.kind in _SIGLIP_KINDS

    @property
    def drops_punctuation(self) -> bool:
        """The first SigLIP was trained on text without punctuation."""
        return self.kind == "siglip"

    @property
    def token_table(self) -> Any:
        """The input embeddings, (tokens, static width)."""
        part = self.model.text_model if self.kind in TWO_TOWER_KINDS else self.model
        return part.get_input_embeddings().weight

    def run(self, ids: Tensor, mask: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
        """Token ids and their mask, both (B, T) → states (B, T, hidden width) of a layer, sentence vectors (B, width).

        Args:
            layer: −1 is the model's own output.
        """
        how = {"output_hidden_states": True} if layer != -1 else {}
        read = {"input_ids": ids} if self.reads_padding else {"input_ids": ids, "attention_mask": mask}
        run = self.model.get_text_features if self.kind in TWO_TOWER_KINDS else self.model
        output = run(**read, **how)
        states = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        return states, self._sentences(output, mask)

    def _sentences(self, output: Any, mask: Tensor) -> Tensor | None:
        if self.pooling is Pooling.NONE:
            return None
        if self.pooling is Pooling.PROJECTED:
            projected: Tensor = output.text_embeds if self.kind == _CLIP_TEXT_KIND else output.pooler_output
            return projected
        states: Tensor = output.last_hidden_state
        if self.pooling is Pooling.FIRST_TOKEN:
            return states[:, 0]
        weights = mask[..., None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def load_text_model(name_or_folder: str | Path, device: str) -> TextModel:
    """Load a text model, or the text side of an image–text or video–text model, in float32.

    Raises:
        ConfigError: the device is not here.
        DataError: transformers is not installed, the model is missing, or it is of a kind not known here.
    """
    folder = local_folder(name_or_folder)
    check_device(device)
    config = load_config(folder, "text model")
    kind = str(config.model_type)
    if hasattr(config, "vision_config") and kind not in TWO_TOWER_KINDS:
        raise DataError(
            f"a model of the kind {kind!r} is not supported as text encoder",
            where=folder,
            mend=f"use one of {', '.join(TWO_TOWER_KINDS)}, or a text-only model",
        )
    with loading(folder, "text model"):
        tokenizer = _load_tokenizer(folder)
        model = _load_text_side(kind, folder)
    text = getattr(config, "text_config", config)
    if not hasattr(text, "hidden_size") or not hasattr(text, "vocab_size"):
        mend = "name a text model such as BERT, RoBERTa, MiniLM or CLIP"
        raise DataError(f"a model of the kind {kind!r} reads no text", where=folder, mend=mend)
    return TextModel(
        kind=kind,
        model=model.to(device),
        tokenizer=tokenizer,
        pooling=_pooling(kind, folder),
        label=model_label(name_or_folder, folder),
        digest=folder_digest(folder),
        hidden_width=int(text.hidden_size),
        num_layers=int(text.num_hidden_layers),
        max_tokens=_max_tokens(text, tokenizer),
        unknown_id=tokenizer.unk_token_id if tokenizer.unk_token_id is not None else 0,
    )


def _load_tokenizer(folder: Path) -> Any:
    """A tokenizer that says where each token stands. Some kinds come with another one beside their tokenizer.json."""
    transformers = require_transformers()
    how = {"local_files_only": True, "trust_remote_code": False, "add_prefix_space": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **how)
    except ImportError:  # SentencePiece, which is not needed to read tokenizer.json
        tokenizer = None
    if getattr(tokenizer, "is_fast", False):
        return tokenizer
    if not (folder / "tokenizer.json").is_file():
        raise DataError("the model has no fast tokenizer", where=folder, mend="add its tokenizer.json")
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _load_text_side(kind: str, folder: Path) -> Any:
    import torch

    transformers = require_transformers()
    model_class = (
        transformers.CLIPTextModelWithProjection if kind == _CLIP_TEXT_KIND else transformers.AutoModel
    )
    model = load_weights(model_class, folder, dtype=torch.float32)
    if kind in TWO_TOWER_KINDS:
        for name, _ in list(model.named_children()):
            if not name.startswith("text_"):
                delattr(model, name)  # the other tower would only take memory
    return model


def _pooling(kind: str, folder: Path) -> Pooling:
    if kind in TWO_TOWER_KINDS or kind == _CLIP_TEXT_KIND:
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
    if config.model_type in _SHIFTED_POSITION_KINDS:
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
