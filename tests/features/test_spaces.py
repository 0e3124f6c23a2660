"""Which rows and sentences share a space, from the names that encoders really have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dciml.features.encoders.captions import CaptionEncoder
from dciml.features.encoders.joined import JoinedEncoder
from dciml.features.encoders.text import same_space
from dciml.features.encoders.transformers_text import TransformersTextEncoder
from dciml.features.encoders.transformers_vision import ClipEncoder, ImageTextEncoder
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.encoders.words import WordEncoder
from dciml.features.vocabulary import Vocabulary

pytest.importorskip("transformers")


def test_names_tell_which_model_made_rows_and_sentences(tiny_model: Callable[[str], Path]) -> None:
    clip, x_clip = tiny_model("clip"), tiny_model("xclip")
    text, x_text = TransformersTextEncoder(clip), TransformersTextEncoder(x_clip, max_words=7)
    image, video = ImageTextEncoder(clip, frames_per_row=2), ClipEncoder(x_clip)
    captions = CaptionEncoder(f"transformers:{clip}")
    assert same_space(image.name, text.name) is True
    assert same_space(video.name, x_text.name) is True
    assert same_space(captions.name, text.name) is True
    for store, other in ((image, x_text), (video, text), (BuiltinVisualEncoder(), text)):
        assert same_space(store.name, other.name) is False
    assert same_space(JoinedEncoder([image, captions]).name, text.name) is False
    words = WordEncoder(Vocabulary.build(["a dog"]))
    assert same_space(image.name, words.name) is False
    assert same_space(CaptionEncoder("words").name, words.name) is False


def test_imported_features_are_left_to_their_widths() -> None:
    assert same_space("imported:qvh", "minilm@0123456789ab-layer-1x30") is None
