"""A tiny Whisper with random weights, as faster-whisper reads it, and sound that passes for speech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDS = ("fox", "kite", "onion", "rain", "bread", "garden", "window", "morning", "river", "yellow")
RATE = 16_000
VOWELS = np.array(
    [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)]
)


def make_whisper(out: Path) -> Path:
    """Write the model as `save_pretrained` leaves it, and convert it; it says words of `WORDS`."""
    import torch
    from ctranslate2.converters import TransformersConverter
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    special = [
        *("<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES)),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
        "<|notimestamps|>",
    ]
    tokenizer = word_tokenizer(special)
    number: Any = tokenizer.token_to_id
    end = number("<|endoftext|>")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[0],
        bos_token=special[0],
        unk_token=special[0],
        additional_special_tokens=special[1:],
    )
    wrapped.save_pretrained(out / "whole")
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=number("<|startoftranscript|>"),
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = WhisperForConditionalGeneration(config)
    words = [number(f"Ġ{word}") for word in WORDS]
    with torch.no_grad():  # loud, so that one of them comes next wherever a text may
        model.model.decoder.embed_tokens.weight[words] *= 20
    model.generation_config = GenerationConfig(
        eos_token_id=end,
        no_timestamps_token_id=number("<|notimestamps|>"),
        lang_to_id={f"<|{name}|>": number(f"<|{name}|>") for name in LANGUAGES},
        is_multilingual=True,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        alignment_heads=[[0, 0]],
    )
    model.save_pretrained(out / "whole")
    WhisperFeatureExtractor().save_pretrained(out / "whole")
    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(out / "whole"), copy_files=copied).convert(str(out / "model"))
    return out / "model"


def word_tokenizer(special: list[str]) -> Any:
    """Bytes, a few words, what Whisper asks of a tokenizer, and times from 0 to 30 seconds."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"Ġ{word}" for word in WORDS), special[0]]
    tokenizer = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    times = [AddedToken(f"<|{0.02 * step:.2f}|>", normalized=False) for step in range(1501)]
    tokenizer.add_tokens(times)
    return tokenizer


def talk(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """A voice that says four vowels a second: harmonics under formants that move; (N,) at 16,000 a second."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 130 + 25 * np.sin(2 * np.pi * 0.6 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    syllable = (4 * time).astype(int)
    formants = VOWELS[rng.integers(0, len(VOWELS), syllable.max() + 1)][syllable].astype(float)
    formants = np.stack([np.convolve(row, np.ones(800) / 800, "same") for row in formants.T], axis=1)
    sound = np.zeros(len(time))
    for harmonic in range(1, 30):
        distance = [(harmonic * pitch - formants[:, k]) / (60 + 20 * k) for k in range(3)]
        loudness = sum(a / (1 + d**2) for a, d in zip((1, 0.6, 0.3), distance, strict=True))
        sound += loudness / harmonic**0.3 * np.sin(harmonic * phase)
    envelope = np.sqrt(np.clip(np.sin(np.pi * (4 * time % 1)), 0, 1))
    sound = sound * envelope + 0.02 * rng.normal(0, 1, len(time)) * (1 - envelope)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def write_film(path: Path, sound: NDArray[np.float32] | None, seconds: float) -> Path:
    """An MP4 of grey pictures, four a second, with this sound (AAC), or none."""
    import av

    with av.open(str(path), "w") as out:
        pictures: Any = out.add_stream("libx264", rate=4)
        pictures.width, pictures.height, pictures.pix_fmt = 48, 32, "yuv420p"
        voice: Any = None
        if sound is not None:
            voice = out.add_stream("aac", rate=RATE)
            voice.codec_context.layout = "mono"
        for step in range(int(4 * seconds)):
            picture = np.full((32, 48, 3), 40 + step % 100, dtype=np.uint8)
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            out.mux(voice.encode(frame))
            out.mux(voice.encode(None))
    return path
