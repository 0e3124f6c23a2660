"""Tiny randomly initialised models of `transformers`, each a folder as `save_pretrained` leaves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXTS = ["a man opens the doorway, then sits down", "dogs run", "the woman doesn't smile", "a red car's door"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PROJECTION, NUM_FRAMES = 10, 4
VISION = {"image_size": 8, "patch_size": 4, **SMALL}
CLIP_LIKE = {
    "clip": "CLIP",
    "metaclip_2": "MetaClip2",
    "clipseg": "CLIPSeg",
    "altclip": "AltCLIP",
    "chinese_clip": "ChineseCLIP",
}


def _byte_pairs(
    end_of_word: str, special: list[str], splits: Any
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level BPE vocabulary with its merges, learned from a few sentences."""
    import tokenizers as tk

    tokenizer = tk.Tokenizer(tk.models.BPE(end_of_word_suffix=end_of_word))
    tokenizer.pre_tokenizer = splits
    trainer = tk.trainers.BpeTrainer(
        vocab_size=len(special) + 310,
        initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        end_of_word_suffix=end_of_word,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def clip_tokenizer() -> Any:
    """A tokenizer of CLIP's own class."""
    import tokenizers as tk
    import transformers

    split = tk.pre_tokenizers.Split(tk.Regex(r"'s|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    splits = tk.pre_tokenizers.Sequence([split, tk.pre_tokenizers.ByteLevel(add_prefix_space=False)])
    vocabulary, merges = _byte_pairs("</w>", ["<|startoftext|>", "<|endoftext|>"], splits)
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=32)


def roberta_tokenizer() -> Any:
    """A tokenizer of RoBERTa's own class."""
    import tokenizers as tk
    import transformers

    splits = tk.pre_tokenizers.ByteLevel(add_prefix_space=True)
    vocabulary, merges = _byte_pairs("", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], splits)
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=32)


def siglip_tokenizer() -> Any:
    """A SentencePiece-like tokenizer (unigrams, spaces as marks), as SigLIP has it in its tokenizer.json."""
    import tokenizers as tk
    import transformers

    words = sorted({word for text in TEXTS for word in text.replace("'", "").replace(",", "").split()})
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -9.0),
        *((f"▁{word}", -2.0) for word in words),
    ]
    pieces += [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = tk.Tokenizer(tk.models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    tokenizer.post_processor = tk.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=12,
    )


def siglip2_tokenizer() -> Any:
    """A tokenizer of SigLIP 2's own class: byte pairs over whole sentences whose spaces are marks."""
    import transformers

    words = ["▁dogs", "▁the"]
    steps = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, "▁", *"abcdefghijklmnopqrstuvwxyz,'", *(one + two for one, two in steps)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return transformers.Siglip2Tokenizer(
        vocab=vocabulary, merges=steps, model_max_length=24, padding_side="right"
    )


def _text_settings(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id or 0,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": tokenizer.model_max_length,
        **SMALL,
    }


def _image_text(kind: str, tokenizer: Any) -> tuple[Any, Any]:
    import transformers as t

    text = _text_settings(tokenizer)
    if kind in CLIP_LIKE:
        name = CLIP_LIKE[kind]
        config = getattr(t, f"{name}Config")(
            text_config=text, vision_config=VISION, projection_dim=PROJECTION
        )
        size: dict[str, Any] = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
        return getattr(t, f"{name}Model")(config), t.CLIPImageProcessorPil(**size)
    text["projection_size"] = SMALL["hidden_size"]
    if kind == "siglip":
        config = t.SiglipConfig(text_config=text, vision_config=VISION)
        return t.SiglipModel(config), t.SiglipImageProcessorPil(size={"height": 8, "width": 8})
    patches = {"num_patches": 4, "patch_size": 4, **SMALL}
    config = t.Siglip2Config(text_config=text, vision_config=patches)
    return t.Siglip2Model(config), t.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=4)


def _clip_model(kind: str) -> Any:
    import transformers as t

    timed = {"num_frames": NUM_FRAMES, **VISION}
    if kind == "videomae":
        return t.VideoMAEModel(t.VideoMAEConfig(tubelet_size=2, **timed))
    if kind == "timesformer":
        return t.TimesformerModel(t.TimesformerConfig(**timed))
    if kind == "vivit":
        return t.VivitModel(t.VivitConfig(tubelet_size=[2, 4, 4], **timed))
    if kind == "vjepa2":
        small = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
        predictor = {f"pred_{name}": value for name, value in small.items()}
        sizes = {"frames_per_clip": NUM_FRAMES, "tubelet_size": 2, "crop_size": 8, "patch_size": 4}
        return t.VJEPA2Model(t.VJEPA2Config(**sizes, **small, **predictor))
    across = {f"mit_{name}": value for name, value in SMALL.items()} | {"mit_hidden_size": PROJECTION}
    config = t.XCLIPConfig(
        text_config=_text_settings(clip_tokenizer()),
        vision_config={**timed, **across},
        projection_dim=PROJECTION,
        prompt_layers=1,
        prompt_num_attention_heads=2,
    )
    return t.XCLIPModel(config)


def save_model(kind: str, folder: Path) -> Path:
    """Write a tiny model of a kind with its tokenizer and image processor."""
    torch, t = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "roberta":
        tokenizer = roberta_tokenizer()
        settings = _text_settings(tokenizer) | {"max_position_embeddings": 32 + tokenizer.pad_token_id + 1}
        parts = [t.RobertaModel(t.RobertaConfig(**settings)), tokenizer]
    elif kind in CLIP_LIKE or kind.startswith("siglip"):
        makers = {"siglip": siglip_tokenizer, "siglip2": siglip2_tokenizer}
        tokenizer = makers.get(kind, clip_tokenizer)()
        parts = [*_image_text(kind, tokenizer), tokenizer]
    else:
        size: dict[str, Any] = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
        parts = [_clip_model(kind), t.VideoMAEImageProcessorPil(**size)]
        parts += [clip_tokenizer()] if kind == "xclip" else []
    for part in parts:
        part.save_pretrained(folder)
    if kind == "siglip":  # as released: the class named there needs SentencePiece
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "SiglipTokenizer"}))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by kind, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_model(kind, tmp_path_factory.mktemp("models") / f"tiny-{kind}")
        return made[kind]

    return get
