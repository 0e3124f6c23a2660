"""From the specs of encoders to what makes a store's rows, and back from a store that says what made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dciml.errors import ConfigError, DataError
from dciml.features.joined import JoinedEncoder, VideoEncoder
from dciml.features.store_format import StoreManifest
from dciml.features.video_encoders import create_video_encoder, model_of

BUILTIN = ("builtin",)


def create_encoder(specs: Sequence[str], rows_per_second: float | None, device: str) -> VideoEncoder:
    """The encoder of one spec, or of several side by side; specs and errors as `create_video_encoder`.

    Raises:
        ConfigError: also for a spec that comes twice, and for encoders that cannot be joined.
    """
    if len(set(specs)) < len(specs):
        raise ConfigError(f"each encoder can be named once, not {', '.join(specs)}")
    alone = len(specs) == 1
    parts = [
        create_video_encoder(spec, rows_per_second=rows_per_second, device=device, alone=alone)
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
