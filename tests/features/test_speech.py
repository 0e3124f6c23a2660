"""Speech as evidence: recognised once, by a tiny Whisper with random weights, kept as text with seconds, searched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.errors import ConfigError, DataError
from dciml.features import FeatureStore
from dciml.features.encoders import speech as recogniser
from dciml.features.encoders.captions import read_captions
from dciml.features.encoders.speech import Speech, speech_model
from dciml.media import probe
from dciml.video_sound import SAMPLES_A_SECOND, pieces_of_sound

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


def spoil_sound(path: Path, out: Path) -> Path:
    """A copy whose packets of sound are noise."""
    import av

    draw = np.random.default_rng(0)
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            copy: Any = packet
            if packet.stream.type == "audio":
                copy = av.Packet(draw.bytes(packet.size))
                copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                copy.time_base = packet.time_base
            copy.stream = streams[packet.stream.index]
            target.mux(copy)
    return out


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faster_whisper")
    return make_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films of a minute ago: one with a voice, one without sound, one with spoilt sound, one with subtitles."""
    folder = tmp_path_factory.mktemp("made") / "films"
    folder.mkdir()
    quiet = np.zeros(RATE, dtype=np.float32)
    voice = write_film(folder / "voice.mp4", np.concatenate([quiet, talk(4), quiet]), 6)
    write_film(folder / "mute.mp4", None, 6)
    spoil_sound(voice, folder / "spoilt.mp4")
    write_film(folder / "titled.mp4", np.concatenate([quiet, talk(4), quiet]), 6)
    (folder / "titled.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nwe bake bread\n")
    for file in folder.iterdir():
        os.utime(file, (time.time() - 60, time.time() - 60))
    return folder


@pytest.fixture
def films(made: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", str(made), str(tmp_path)], check=True)
    return tmp_path / "films"


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def serve_until_read(
    films: Path, *more: object
) -> tuple[dict[str, Any], str, dict[str, Any], dict[str, Any]]:
    """Serve a folder by the real command until all is read.

    Returns: the state, what was heard in voice.mp4, the answer to that, and the answer to what a subtitle says.
    """
    words = ["serve", str(films), "--port", "0", "--encoder", "builtin", *(str(word) for word in more)]
    with subprocess.Popen(
        [sys.executable, "-m", "dciml", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = next(
                found[0] for line in process.stdout if (found := re.search(r"http://\S+?/", line)) is not None
            )
            end = time.monotonic() + 120
            while (state := ask(address, "api/folder"))["done"] < 4 or state["working"]:
                assert time.monotonic() < end, state
                time.sleep(0.2)
            (kept,) = films.with_name("films.dciml").glob("speech/voice.*.jsonl")
            heard = read_captions(kept)[0].text.split()[0]
            answers = [ask(address, "api/search", {"sentence": text, "k": 9}) for text in (heard, "we bake")]
        finally:
            process.send_signal(signal.SIGTERM)
    return state, heard, *answers


@pytest.mark.slow
def test_serving_a_folder_makes_speech_searchable_once(films: Path, whisper: Path) -> None:
    state, heard, spoken, written = serve_until_read(films, "--speech-model", whisper)
    assert heard in WORDS
    assert spoken["hits"][0]["video_id"] == "films/voice.mp4"
    assert written["hits"][0]["video_id"] == "films/titled.mp4"  # its subtitles go first
    (note,) = [note for note in state["notes"] if "speech" in note]
    assert "mute.mp4: the video has no sound" in note
    assert "spoilt.mp4: the sound cannot be decoded" in note
    assert state["failures"] == []

    kept = {file.name.split(".")[0]: file for file in (films.parent / "films.dciml" / "speech").iterdir()}
    assert set(kept) == {"voice", "mute", "spoilt"}
    lines = read_captions(kept["voice"])
    assert lines
    assert all(0.5 <= line.start_seconds <= line.end_seconds <= 6 for line in lines), lines
    assert set(" ".join(line.text for line in lines).split()) <= set(WORDS)
    times = {name: file.stat().st_mtime_ns for name, file in kept.items()}
    rows = FeatureStore.open(films.parent / "films.dciml" / "store").rows("films/voice.mp4")

    _, _, spoken, _ = serve_until_read(films)  # the home knows that there is speech, and by which model
    assert spoken["hits"][0]["video_id"] == "films/voice.mp4"
    assert {name: file.stat().st_mtime_ns for name, file in kept.items()} == times
    again = FeatureStore.open(films.parent / "films.dciml" / "store").rows("films/voice.mp4")
    np.testing.assert_array_equal(again, rows)


@pytest.mark.slow
def test_speech_is_taken_up_where_it_was_ended(
    tmp_path: Path, whisper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recogniser, "pieces_of_sound", partial(pieces_of_sound, piece_seconds=14.0))
    film = write_film(tmp_path / "a.mp4", np.tile(talk(5), 6), 30)
    speech = Speech(tmp_path / "speech", str(whisper))

    class Ended(Exception):
        pass

    def end_late(done: float) -> None:
        if list(speech.folder.glob("*.part")):
            raise Ended

    with pytest.raises(Ended):
        speech.recognise(film, end_late)
    (partial_file,) = speech.folder.iterdir()
    before = json.loads(partial_file.read_text())
    assert 4 <= before["done_seconds"] <= 14
    assert speech.found(film) is None
    lines = [json.loads(line) for line in speech.recognise(film).read_text().splitlines()]
    assert lines[: len(before["lines"])] == before["lines"]  # not recognised anew
    assert max(line["end"] for line in lines) > before["done_seconds"]
    assert all(0 <= line["start"] <= line["end"] <= 30.1 for line in lines)
    assert [file.suffix for file in speech.folder.iterdir()] == [".jsonl"]

    write_film(film, None, 3)  # the video is another one now
    assert "has no sound" in speech.recognise(film).read_text()
    assert len(list(speech.folder.iterdir())) == 1


def test_the_sound_of_a_video_keeps_its_clock(tmp_path: Path) -> None:
    quiet = np.zeros(3 * RATE, dtype=np.float32)
    film = write_film(tmp_path / "a.mp4", np.concatenate([quiet, talk(2), quiet, talk(2)]), 10)
    pieces = list(pieces_of_sound(film, piece_seconds=7.0))
    starts, sounds = [start for start, _ in pieces], [samples for _, samples in pieces]
    ends = [start + len(samples) / SAMPLES_A_SECOND for start, samples in pieces]
    assert starts[1:] == pytest.approx(ends[:-1])
    assert 5 < ends[0] < 7  # cut where it is quiet, not in the middle of a word
    whole = np.concatenate(sounds)
    assert len(whole) / SAMPLES_A_SECOND == pytest.approx(probe(film).duration_seconds, abs=0.2)
    loud = np.flatnonzero(np.abs(whole) > 0.05) / SAMPLES_A_SECOND
    assert loud[0] == pytest.approx(3, abs=0.15)
    ((late, samples), *_) = pieces_of_sound(film, 7.5)
    assert late == 7.5
    assert np.flatnonzero(np.abs(samples) > 0.05)[0] / SAMPLES_A_SECOND == pytest.approx(0.5, abs=0.15)


def test_extracting_with_speech_keeps_it_in_the_store(films: Path, tmp_path: Path, whisper: Path) -> None:
    store = tmp_path / "store"
    words = [
        "extract",
        str(films),
        "--out",
        str(store),
        "--encoder",
        "text:words:64",
        "--workers",
        "1",
        "--json",
    ]
    without = CliRunner().invoke(app, [*words[:3], str(tmp_path / "other"), *words[4:]])
    assert (
        len(json.loads(without.stdout)["failed"]) == 3
    )  # nothing but words is asked for, and there are none
    done = json.loads(CliRunner().invoke(app, [*words, "--speech-model", str(whisper)]).stdout)
    assert set(done["extracted"]) == {"voice", "mute", "spoilt", "titled"}
    assert done["failed"] == []
    assert np.abs(FeatureStore.open(store).rows("voice")).sum() > 0
    again = json.loads(CliRunner().invoke(app, [*words, "--speech-model", str(whisper)]).stdout)
    assert (again["extracted"], len(again["unchanged"])) == ([], 4)
    later = json.loads(CliRunner().invoke(app, words).stdout)  # what was recognised is still read
    assert (later["extracted"], len(later["unchanged"])) == ([], 4)


def run(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    raise AssertionError(done.output)


def test_what_is_wrong_with_a_model_is_told_before_anything_is_made(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    serve = ["serve", films, "--encoder", "builtin"]
    with pytest.raises(DataError, match=r"no model of faster-whisper: it has no model\.bin"):
        run(*serve, "--speech-model", tmp_path / "empty")
    with pytest.raises(DataError, match="there is no speech model 'bse'"):
        run(*serve, "--speech-model", "bse")
    assert not films.with_name("films.dciml").exists()
    (tmp_path / "m").mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / "m" / name).write_text("{}")
    words = [
        "extract",
        films,
        "--out",
        tmp_path / "s",
        "--encoder",
        "builtin",
        "--speech-model",
        tmp_path / "m",
    ]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2
    assert "read by an encoder of text, and none is named" in done.stderr
    assert speech_model(str(tmp_path / "m")) == tmp_path / "m"


def test_a_model_is_asked_for_with_its_size(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user whose cache is empty, and who cannot be asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(films.parent / "cache"))
    words = ["serve", films, "--encoder", "builtin", "--speech"]
    with pytest.raises(ConfigError, match=r"model base \(0\.15 GB\) is not here\. .* call again with --yes"):
        run(*words)
    with pytest.raises(DataError, match="'base' cannot be fetched"):
        run(*words, "--yes")  # there is no network for tests
    assert not films.with_name("films.dciml").exists()
