"""Extract: any video files → a feature store, from the names on the command line to the list of failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dciml.errors import ConfigError
from dciml.features import (
    BUILTIN,
    MANIFEST_FILE,
    Extraction,
    ExtractionProgress,
    Failure,
    FeatureStoreWriter,
    IdForm,
    Precision,
    Shard,
    Speech,
    StoreManifest,
    VideoEncoder,
    create_encoder,
    extract_video,
    extract_videos,
    find_videos,
    lasting_specs,
    read_manifest,
    with_precision,
)
from dciml.files import write_json_lines
from dciml.folders import refuse_foreign

FAILURES_FILE = "failures.jsonl"


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract.

    `encoders` are specs as `create_video_encoder` reads them; several stand side by side in each row. Where there are
    none, or no `rows_per_second`, what the store says counts, and for a new one the built-in encoder and its rate.
    `workers` are processes. `shard` takes one part of the videos, into a store of its own. `ray` shares the work out by
    Ray Data. `precision` is that of models, see `with_precision`. `speech_model` recognises what is said in videos
    without captions; what it found is kept in `speech/` in the store, and read again also where no model is named.
    """

    encoders: tuple[str, ...] = ()
    rows_per_second: float | None = None
    workers: int = 2
    device: str = "cpu"
    shard: Shard | None = None
    ids: IdForm = "stem"
    ray: bool = False
    precision: Precision | None = None
    speech_model: str | None = None


@dataclass(frozen=True)
class ExtractPlan:
    """What an extraction is about to do: the files by id, the encoder with its specs, and the store's folder."""

    paths: dict[str, Path]
    encoder: VideoEncoder
    specs: tuple[str, ...]
    store_path: Path


def plan_extraction(paths: Sequence[str | Path], out: Path, options: ExtractOptions) -> ExtractPlan:
    """Find the files and make the encoder.

    Raises:
        DataError: `out` holds something else, a path leads nowhere, no video, two files with one id, or a model that
            cannot be loaded.
        ConfigError: no such encoder, encoders that cannot be joined, or a precision that they cannot have.
    """
    store_path = out if options.shard is None else options.shard.store_path(out)
    refuse_foreign(store_path, MANIFEST_FILE)
    found = find_videos(paths, options.ids)
    specs, rate = options.encoders, options.rows_per_second
    if (store_path / MANIFEST_FILE).exists():
        before = read_manifest(store_path)
        specs, rate = specs or before.encoder_specs, rate or before.rows_per_second
    specs = with_precision(specs or BUILTIN, options.precision)
    if options.ray and options.speech_model is not None:
        raise ConfigError("speech is not recognised under Ray. To mend it: leave out --ray or --speech")
    speech = Speech(store_path / "speech", options.speech_model, options.device)
    encoder = create_encoder(specs, rate, options.device, speech)
    chosen = found if options.shard is None else options.shard.of(found)
    return ExtractPlan(chosen, encoder, lasting_specs(specs), store_path)


def extract(
    plan: ExtractPlan,
    options: ExtractOptions,
    on_progress: Callable[[ExtractionProgress], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
) -> Extraction:
    """Carry out a plan; what the store already holds of unchanged files is left alone.

    The files that failed are listed in the store's `failures.jsonl`; there is none when all went well.

    Raises:
        DataError: the store is of another encoder, in use, or cannot be written; Ray is not installed.
    """
    encoder = plan.encoder
    manifest = StoreManifest(encoder.name, encoder.width, encoder.rows_per_second, plan.specs)
    FeatureStoreWriter(
        plan.store_path, manifest
    ).close()  # so that the store says what made it, whatever comes
    run = None
    if options.ray:
        from dciml.features import RayRunner

        run = RayRunner(partial(extract_video, encoder=encoder), options.workers)
    failures: list[Failure] = []

    def note(failure: Failure) -> None:
        failures.append(failure)
        if on_failure is not None:
            on_failure(failure)

    try:
        done = extract_videos(plan.paths, encoder, plan.store_path, options.workers, on_progress, note, run)
    except BaseException:
        with suppress(OSError):  # the disk may be full, which has been reported already
            _write_failures(plan.store_path, failures)
        raise
    _write_failures(plan.store_path, failures)
    return done


def _write_failures(store_path: Path, failures: Sequence[Failure]) -> None:
    file = store_path / FAILURES_FILE
    if not failures:
        file.unlink(missing_ok=True)
        return
    write_json_lines(
        file,
        (
            {
                "video_id": failure.video_id,
                "path": str(failure.path),
                "reason": failure.error.what,
                "mend": failure.error.mend,
            }
            for failure in failures
        ),
    )
