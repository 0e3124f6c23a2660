"""Words and sub-word tokens of the families of tokenizers: byte pairs (RoBERTa, CLIP), unigrams and SigLIP 2's pairs.

WordPiece is tested in test_transformers_text.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.base import FloatRows
from dciml.features.encoders.text import create_text_encoder
from dciml.features.encoders.transformers_text import TransformersTextEncoder
from dciml.features.vocabulary import Vocabulary, tokenize

transformers = pytest.importorskip("transformers")

Models = Callable[[str], Path]
KINDS = ("roberta", "clip", "siglip", "siglip2", "xclip")
TEXT = "The doorway doesn't close, café!"


def states_of(folder: Path, text: str, pieces: list[str], **how: Any) -> tuple[FloatRows, FloatRows | None]:
    """States of the tokens that the model's own classes make of a text, and its sentence vector; tokens are checked."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    inputs = tokenizer([text], return_tensors="pt", **how)
    assert tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])[: len(pieces)] == pieces
    if how:
        del inputs["attention_mask"]  # SigLIP was trained without
    model = transformers.AutoModel.from_pretrained(folder).eval()
    two_towers = hasattr(model, "get_text_features")
    with torch.no_grad():
        output = model.get_text_features(**inputs) if two_towers else model(**inputs)
    return output.last_hidden_state[0].numpy(), output.pooler_output[0].numpy() if two_towers else None


def check(folder: Path, text: str, spans: list[tuple[int, int]], states: FloatRows) -> None:
    encoded = TransformersTextEncoder(folder).encode([text, "dogs"])[0]
    assert encoded.words == tokenize(text)
    rows = np.stack([states[start:end].mean(axis=0) for start, end in spans])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.contextual, rows, atol=1e-5)


def test_roberta_words_are_the_means_of_their_byte_pairs(tiny_model: Models) -> None:
    pieces = [
        "<s>",
        "Ġ",
        "T",
        "he",
        "Ġdoorway",
        "Ġdoesn",
        "'t",
        "Ġ",
        *"close",
        ",",
        "Ġ",
        *"caf",
        "Ã",
        "©",
        "!",
    ]
    states, _ = states_of(tiny_model("roberta"), TEXT, [*pieces, "</s>"])
    check(tiny_model("roberta"), TEXT, [(2, 4), (4, 5), (5, 7), (8, 13), (15, 20)], states)


@pytest.mark.parametrize("kind", ["clip", "xclip"])
def test_clip_words_are_the_means_of_their_byte_pairs(tiny_model: Models, kind: str) -> None:
    end, close = "<|endoftext|>", [*"clos", "e</w>"]
    pieces = [
        "the</w>",
        "doorway</w>",
        "doesn</w>",
        "'",
        "t</w>",
        *close,
        ",</w>",
        *"caf",
        "Ã",
        end,
        end,
        end,
    ]
    states, vector = states_of(tiny_model(kind), TEXT, ["<|startoftext|>", *pieces])
    check(tiny_model(kind), TEXT, [(1, 2), (2, 3), (3, 6), (6, 11), (12, 17)], states)
    sentence = TransformersTextEncoder(tiny_model(kind)).encode([TEXT])[0].sentence
    assert vector is not None
    np.testing.assert_allclose(sentence, vector / np.linalg.norm(vector), atol=1e-5)


def test_siglip_reads_bare_lower_case_text_at_full_length(tiny_model: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(
        tiny_model("siglip"), tmp_path / "siglip"
    )  # with a tokenizer that needs no SentencePiece
    settings_file = folder / "tokenizer_config.json"
    plain = json.loads(settings_file.read_text()) | {"tokenizer_class": "TokenizersBackend"}
    settings_file.write_text(json.dumps(plain))
    text, pieces = "The dogs, doesn't RUN zz", ["▁the", "▁dogs", "▁doesnt", "▁run", "▁", "z", "z", "</s>"]
    full = {"padding": "max_length", "max_length": 12}
    states, vector = states_of(folder, "the dogs doesnt run zz", [*pieces, *["<pad>"] * 4], **full)
    for model in (folder, tiny_model("siglip")):
        check(model, text, [(0, 1), (1, 2), (2, 3), (3, 4), (5, 7)], states)
        sentence = TransformersTextEncoder(model).encode([text])[0].sentence
        assert vector is not None
        np.testing.assert_allclose(sentence, vector / np.linalg.norm(vector), atol=1e-5)


def test_siglip2_reads_lower_case_text_at_full_length(tiny_model: Models) -> None:
    text, pieces = "the Dogs, man", ["t", "h", "e", "▁dogs", ",", "▁", "m", "a", "n", "<pad>"]
    folder, full = tiny_model("siglip2"), {"padding": "max_length", "max_length": 24}
    states, vector = states_of(folder, text.lower(), pieces, **full)
    check(folder, text, [(0, 3), (3, 4), (6, 9)], states)
    assert vector is not None
    sentence = TransformersTextEncoder(folder).encode([text])[0].sentence
    np.testing.assert_allclose(sentence, vector / np.linalg.norm(vector), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_static_rows_see_one_word_alone(tiny_model: Models, kind: str) -> None:
    encoder = TransformersTextEncoder(tiny_model(kind))
    one, two = encoder.encode(["dogs run", "dogs sits"])
    np.testing.assert_array_equal(one.static[0], two.static[0])
    assert np.abs(one.static[1] - two.static[1]).max() > 0.01
    assert np.abs(one.contextual[0] - two.contextual[0]).max() > 1e-6 or kind in ("clip", "xclip")  # causal


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=12)
@given(text=st.text("abcdoğ İß'.,-é\u0301", max_size=30).map(lambda text: f"dogs {text}"))
def test_any_text_gives_a_unit_row_a_word(tiny_model: Models, kind: str, text: str) -> None:
    encoder = encoder_of(kind, tiny_model)
    alone, together = encoder.encode([text])[0], encoder.encode(["a man opens the doorway", text])[1]
    assert alone.words == tokenize(text)[: len(alone.words)]
    assert len(alone.words) == len(tokenize(text)) or len(text) > 10  # cut where the model's positions end
    for rows in (alone.contextual, alone.static):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(alone.contextual, together.contextual, atol=1e-4)


_ENCODERS: dict[str, TransformersTextEncoder] = {}


def encoder_of(kind: str, tiny_model: Models) -> TransformersTextEncoder:
    if kind not in _ENCODERS:
        _ENCODERS[kind] = TransformersTextEncoder(tiny_model(kind))
    return _ENCODERS[kind]


def test_models_without_text_or_tokenizer_are_refused(tiny_model: Models, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no text model can be loaded|'timesformer' reads no text"):
        TransformersTextEncoder(tiny_model("timesformer"))
    folder = shutil.copytree(tiny_model("siglip"), tmp_path / "slow")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer"):
        TransformersTextEncoder(folder)


def test_text_side_of_an_image_text_model_has_a_spec(tiny_model: Models) -> None:
    encoder = create_text_encoder(f"transformers:{tiny_model('siglip2')}", Vocabulary.build(["a dog"]))
    assert (encoder.width, encoder.static_width) == (16, 16)
    assert encoder.name.startswith("tiny-siglip2@")
