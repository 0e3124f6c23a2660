"""From the names of video encoders to encoders and to what makes a store's rows, and back from a store."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dciml.errors import ConfigError, DataError
from dciml.features.base import PRECISIONS, FrameEncoder, Precision
from dciml.features.encoders.joined import JoinedEncoder, VideoEncoder
from dciml.features.encoders.text import JOINT
from dciml.features.encoders.visual import ROWS_PER_SECOND, BuiltinVisualEncoder
from dciml.features.store_format import StoreManifest

if TYPE_CHECKING:  # which loads the video libraries
    from dciml.features.encoders.speech import Speech

USAGE = "builtin, image:MODEL[:frames=N], video:MODEL[:window=SECONDS,stride=SECONDS] or text:TEXT-ENCODER"
PRECISION = "precision"
_KINDS = ("builtin", "image", "video", "text")
_OPTIONS = {"image": ("frames",), "video": ("window", "stride")}


def create_video_encoder(
    spec: str,
    *,
    rows_per_second: float | None = None,
    device: str = "cpu",
    alone: bool = True,
    speech: Speech | None = None,
    lenient: bool = False,
) -> FrameEncoder:
    """Make the encoder that `spec` names.

    Args:
        spec: `builtin`; `image:MODEL[:frames=N]`, an image–text model, N pictures a row; `video:MODEL[:window=SECONDS,
            stride=SECONDS]`, a model of clips; `text:TEXT-ENCODER`, the captions beside the video. MODEL is a folder
            or a hub name in the local cache, TEXT-ENCODER what `create_text_encoder` reads. Models also take
            `precision=bf16` or `precision=int8` among their options, see `LazyModel`.
        rows_per_second: None for the usual rate, 2.
        device: where models run.
        alone: the rows are all that a store has of a video. A video without captions is then an error; beside
            other rows, its rows of text are zero.
        speech: stands in for captions where there are none.
        lenient: captions that cannot be read are left out where a video has other rows; else they are an error.
    Raises:
        ConfigError: the spec is not one of these, or the device is not here.
        DataError: a package or model is missing, or the model is of another kind.

    >>> create_video_encoder("builtin").name
    'builtin-visual-1'
    """
    rate = ROWS_PER_SECOND if rows_per_second is None else rows_per_second
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rows a second must be a positive number, not {rate}")
    kind, _, argument = spec.partition(":")
    if kind == "builtin" and not argument:
        return BuiltinVisualEncoder(rate)
    if kind == "text" and argument:
        from dciml.features.encoders.captions import CaptionEncoder

        recognises = speech is not None and speech.model is not None
        return CaptionEncoder(argument, rate, device, alone and not recognises, speech, lenient and not alone)
    if kind in _OPTIONS and argument:
        model, options, precision = _split_options(spec, kind, argument)
        if kind == "image":
            from dciml.features.encoders.transformers_vision import ImageTextEncoder

            frames = _whole(spec, options.get("frames", 1.0))
            return ImageTextEncoder(model, rate, frames, device, precision)
        from dciml.features.encoders.transformers_vision import STRIDE_SECONDS, WINDOW_SECONDS, ClipEncoder

        window, stride = options.get("window", WINDOW_SECONDS), options.get("stride", STRIDE_SECONDS)
        return ClipEncoder(model, rate, window, stride, device, precision)
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    hint = f"; did you mean {near[0]}?" if near and near[0] != kind else ""
    raise ConfigError(f"unknown video encoder {spec!r}: use {USAGE}{hint}")


def model_of(spec: str) -> str:
    """The model that a spec names: a folder or a hub name; "" for the project's own encoders.

    >>> model_of("video:models/mae:window=2,stride=1"), model_of("text:transformers:models/clip"), model_of("builtin")
    ('models/mae', 'models/clip', '')
    """
    kind, _, argument = spec.partition(":")
    if kind == "text":
        return argument.partition(":")[2]
    return _split_options(spec, kind, argument)[0] if kind in _OPTIONS else ""


def with_precision(specs: Sequence[str], precision: Precision | None) -> tuple[str, ...]:
    """The specs with a precision for each model of pictures or clips; None: as they are.

    Raises:
        ConfigError: one of them names another precision, or there is no such model.

    >>> with_precision(["image:models/clip:frames=2", "text:words:8"], "bf16")
    ('image:models/clip:frames=2,precision=bf16', 'text:words:8')
    """
    if precision is None:
        return tuple(specs)
    if not any(_kind_of(spec) in _OPTIONS for spec in specs):
        raise ConfigError("a precision is that of an image: or video: model, and no encoder here is one")
    return tuple(_with_precision(spec, precision) if _kind_of(spec) in _OPTIONS else spec for spec in specs)


def _with_precision(spec: str, precision: Precision) -> str:
    kind, _, argument = spec.partition(":")
    model, _, before = _split_options(spec, kind, argument)
    if before not in (None, precision):
        raise ConfigError(f"encoder {spec!r}: its precision is {before}, not {precision}")
    if before:
        return spec
    return f"{spec}{':' if argument == model else ','}{PRECISION}={precision}"


def _kind_of(spec: str) -> str:
    return spec.partition(":")[0]


def _split_options(spec: str, kind: str, argument: str) -> tuple[str, dict[str, float], Precision | None]:
    """The model, its options and its precision: what follows the last colon, if it is of the form name=value,…"""
    model, _, last = argument.rpartition(":")
    if not model or "=" not in last:
        return argument, {}, None
    options: dict[str, float] = {}
    precision: Precision | None = None
    for part in last.split(","):
        name, _, text = part.partition("=")
        if name == PRECISION:
            precision = _precision(spec, text)
            continue
        if name not in _OPTIONS[kind]:
            known = ", ".join((*_OPTIONS[kind], PRECISION))
            raise ConfigError(f"encoder {spec!r}: there is no option {name!r}; {kind} knows {known}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"encoder {spec!r}: {name} must be a positive number, not {text!r}")
        options[name] = value
    return model, options, precision


def _precision(spec: str, text: str) -> Precision:
    for known in PRECISIONS:
        if text == known:
            return known
    raise ConfigError(f"encoder {spec!r}: {PRECISION} must be {' or '.join(PRECISIONS)}, not {text!r}")


def _whole(spec: str, value: float) -> int:
    if value != int(value):
        raise ConfigError(f"encoder {spec!r}: frames must be a whole number, not {value:g}")
    return int(value)


BUILTIN = ("builtin",)


def text_spec_of(specs: Sequence[str], encoder: VideoEncoder) -> str:
    """The text encoder whose sentence vectors can be compared with rows of these encoders, as `create_text_encoder`
    reads it; a blank one beside rows that no sentence can be compared with.

    Args:
        specs: as `create_encoder` takes them. encoder: made of them; tells the widths.
    """
    parts = encoder.parts if isinstance(encoder, JoinedEncoder) else (encoder,)
    return JOINT.join(_text_spec_of(spec, part.width) for spec, part in zip(specs, parts, strict=True))


def _text_spec_of(spec: str, width: int) -> str:
    kind, _, argument = spec.partition(":")
    if kind == "text":
        return argument
    return f"transformers:{model_of(spec)}" if kind == "image" else f"blank:{width}"


def widths_of(encoder: VideoEncoder) -> tuple[int, ...]:
    """The widths of the rows that stand side by side."""
    return tuple(p.width for p in encoder.parts) if isinstance(encoder, JoinedEncoder) else (encoder.width,)


def create_encoder(
    specs: Sequence[str],
    rows_per_second: float | None,
    device: str,
    speech: Speech | None = None,
    lenient: bool = False,
) -> VideoEncoder:
    """The encoder of one spec, or of several side by side; arguments and errors as `create_video_encoder`.

    Raises:
        ConfigError: also for a spec that comes twice, for encoders that cannot be joined, and for speech that none of
            them would read.
        DataError: also where the model of speech is not here.
    """
    if len(set(specs)) < len(specs):
        raise ConfigError(f"each encoder can be named once, not {', '.join(specs)}")
    if speech is not None and speech.model is not None:
        if not any(spec.startswith("text:") for spec in specs):
            raise ConfigError(
                "what is said is read by an encoder of text, and none is named. "
                "To mend it: add one, such as --encoder text:words:256"
            )
        speech.check()
    alone = len(specs) == 1
    parts = [
        create_video_encoder(
            spec, rows_per_second=rows_per_second, device=device, alone=alone, speech=speech, lenient=lenient
        )
        for spec in specs
    ]
    return parts[0] if alone else JoinedEncoder(parts)


def lasting_specs(specs: Sequence[str]) -> tuple[str, ...]:
    """The specs as they are typed, but models in local folders by their absolute paths: they hold from anywhere."""
    return tuple(map(_lasting, specs))


def encoder_of(manifest: StoreManifest, device: str, specs: Sequence[str] = ()) -> VideoEncoder:
    """The encoder that made the rows of a store.

    Args:
        specs: how to make it, where the store does not say, or says what does not hold here.
    Raises:
        DataError: it cannot be made here, or is another one by now.
    """
    used = tuple(specs) or manifest.encoder_specs or BUILTIN
    named = " ".join(f"--encoder {spec}" for spec in used)
    mend = "name the encoder that `dciml extract` was given, with --encoder, where its model is now"
    try:
        encoder = create_encoder(used, manifest.rows_per_second, device)
    except (ConfigError, DataError) as error:
        what = error.what if isinstance(error, DataError) else str(error).rstrip(".")
        raise DataError(
            f"the encoder of these features ({named}) cannot be made here: {what}", mend=mend
        ) from error
    if encoder.name != manifest.encoder:
        raise DataError(
            f"the features are of {manifest.encoder!r}, and {named} makes {encoder.name!r}", mend=mend
        )
    return encoder


def _lasting(spec: str) -> str:
    model = model_of(spec)
    return spec.replace(model, str(Path(model).absolute()), 1) if model and Path(model).is_dir() else spec
