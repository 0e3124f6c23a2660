"""Train both branches from (video, sentence) pairs. The whole story of a run, top to bottom."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from dciml import cautions
from dciml.config import RunConfig, dump_config, without_later_settings
from dciml.datasets import DataFolder, split_off_validation
from dciml.errors import ConfigError, DataError, ModelError
from dciml.features import (
    EncodedCorpus,
    StoreManifest,
    Vocabulary,
    WindowedStore,
    WindowRule,
    encode_cached,
    long_windows,
    same_space,
)
from dciml.files import read_json, write_json, write_text
from dciml.folders import (
    CALIBRATION_FILE,
    CARD_FILE,
    CHECKPOINT_FILE,
    RUN_FILE,
    SETTINGS_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    refuse_foreign,
)
from dciml.locks import Lock, take
from dciml.method import SIDES, Batch, DualBranch
from dciml.model_folder import (
    MODEL_FORMAT,
    ModelCard,
    batch_sizes,
    build_dual,
    build_objective,
    build_step,
    describe_run,
    draw_of,
    has_fixed_shapes,
    make_text_encoder,
)
from dciml.recipes.calibrate import calibrate_run
from dciml.recipes.trained_on import TrainedOn, keeps_last, training_cautions
from dciml.training import (
    Chosen,
    Group,
    Moments,
    Optimizers,
    PairData,
    Reporter,
    RunProgress,
    Stopped,
    StopRequest,
    any_process,
    choose_local_weight,
    choose_windows,
    epoch_groups,
    fit_whitening,
    load_checkpoint,
    load_tensors,
    lr_factor,
    on_device,
    prefetched,
    refuse_too_large,
    remove_half_written,
    save_checkpoint,
    save_tensors,
    training_step,
    validate,
)

WINDOWS_FILE = "long_windows.json"  # the windows of the present epoch, for a run that goes on within it


@dataclass
class Run:
    """The state of a run between two steps."""

    fabric: Fabric
    config: RunConfig
    out: Path
    card: ModelCard
    model: DualBranch
    optimizers: Optimizers
    training: PairData
    held_out: PairData
    held_out_moments: Moments | None = None  # only when the user allows it
    progress: RunProgress = field(default_factory=RunProgress)
    stop: StopRequest = field(default_factory=StopRequest)

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """What a resumed run must have in common with this one."""
        return fixed_settings(self)

    def save(self) -> None:
        """Write the checkpoint; only the first process writes."""
        if self.fabric.global_rank == 0:
            scaler = self.fabric.strategy.precision.state_dict()
            save_checkpoint(self.out, self.model, self.optimizers, self.progress, self.fixed, scaler)

    def load(self) -> None:
        """Go back to where the checkpoint was written."""
        self.progress, scaler = load_checkpoint(self.out, self.model, self.optimizers, self.fixed)
        self.fabric.strategy.precision.load_state_dict(scaler)

    def stop_if_asked(self) -> None:
        """Save and stop when any process was asked to; between two steps, so that the checkpoint is exact.

        Raises:
            Stopped: says where the run stands.
        """
        if any_process(self.fabric, self.stop.asked):
            self.save()
            self.fabric.barrier()  # none leaves before the checkpoint is written
            place = f"epoch {self.progress.epoch + 1}, after {self.progress.step} steps in all"
            raise Stopped(f"stopped in {place}; the run is saved in {self.out}, go on with --resume")


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> Path:
    """Run to the end and leave a model folder in `out`.

    Args:
        on_epoch: is told after each epoch how many are done.
    Raises:
        ModelError: `out` holds a run or a model and `resume` is not set, or the run there has other settings.
        DataError: `out` is not a run's, another process trains there, or the data folder cannot be used.
        TrainingError: a loss is not finite.
        Stopped: SIGINT or SIGTERM came; the run is saved.
    """
    _check_out(out, resume)
    fabric = make_fabric(config)
    reporter = Reporter(out, enabled=fabric.global_rank == 0, quiet=quiet)
    with reporter.showing():
        _run(config, out, fabric, reporter, on_epoch, resume=resume)
    return out


def _run(
    config: RunConfig,
    out: Path,
    fabric: Fabric,
    reporter: Reporter,
    on_epoch: Callable[[int], None] | None,
    *,
    resume: bool,
) -> None:
    run = _set_up(config, out, fabric, reporter)
    lock = _own(out) if fabric.global_rank == 0 else None
    try:
        with run.stop.listening():
            _begin(run, resume, reporter)
            with _repeatable(fabric), reporter.open(run.progress, config.training.epochs):
                _epochs(run, reporter, on_epoch)
        if lock is not None:
            reporter.stage("calibrating")
            reporter.note(_calibrated(run))
    finally:
        if lock is not None:
            lock.close()


def _begin(run: Run, resume: bool, reporter: Reporter) -> None:
    """Go on where the checkpoint is, or write the folder of a new run."""
    is_first, out = run.fabric.global_rank == 0, run.out
    if is_first:
        _check_out(out, resume)  # another process may have trained here until now
    goes_on = run.fabric.broadcast(resume and (out / CHECKPOINT_FILE).exists())  # before the first writes one
    if goes_on:
        run.load()
    if is_first:
        remove_half_written(out)
        (out / CALIBRATION_FILE).unlink(missing_ok=True)  # the weights will change
        told = training_cautions(run.config, run.training, run.held_out, run.fabric.world_size)
        _write_folder(run, cautions.tell(told))
    if not goes_on:
        run.save()  # so that a run can be resumed from its first moment on
    if resume and not goes_on:
        reporter.note("no checkpoint yet: training starts afresh")


def _calibrated(run: Run) -> str:
    """Calibrate the kept weights; says what came of it."""
    try:
        found = calibrate_run(run.out, DataFolder.open(Path(run.config.data.folder)), str(run.fabric.device))
    except DataError as error:
        return f"not calibrated, so answers come without a confidence: {error}"
    return f"calibrated on {found.num_sentences} held-out sentences in a corpus of {found.num_videos} videos"


@contextmanager
def _repeatable(fabric: Fabric) -> Iterator[None]:
    """On a CPU, use the algorithms that give the same sums whatever the threads do.

    Without this two runs with two threads part after some steps: gradients of gathered rows are added up in the order
    in which the threads come.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or fabric.device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _own(out: Path) -> Lock:
    """Make the run's folder and lock it.

    Raises:
        DataError: it cannot be made, or another process trains there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder of the run cannot be made ({error.strerror})"
        raise DataError(what, where=out, mend="name another --out") from error
    return take(out, "training a model")


def _check_out(out: Path, resume: bool) -> None:
    refuse_foreign(out, CARD_FILE)
    if (out / CHECKPOINT_FILE).exists():
        if not resume:
            raise ModelError(f"{out}: holds a run already; go on with --resume, or choose another --out")
    elif (out / WEIGHTS_FILE).exists():
        raise ModelError(f"{out}: holds a model whose training cannot go on; choose another --out")


def make_fabric(config: RunConfig) -> Fabric:
    """Processes, device and precision as the settings say; under torchrun, as torchrun says.

    Raises:
        ConfigError: there are fewer devices, or none of this kind.
    """
    settings = config.training
    devices, num_nodes = settings.devices, 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices, num_nodes = _processes_of_torchrun()
    _check_devices(settings.accelerator, devices)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    several = devices * num_nodes > 1
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=settings.precision,
        strategy="ddp" if several else "auto",
    )
    if several:
        fabric.launch()
    return fabric


def _processes_of_torchrun() -> tuple[int, int]:
    """On this machine, and the number of machines."""
    try:
        here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return here, everywhere // here
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            "TORCHELASTIC_RUN_ID is set, but LOCAL_WORLD_SIZE and WORLD_SIZE are not what torchrun sets; start several "
            "processes with torchrun, or unset it"
        ) from error


def _check_devices(accelerator: str, wanted: int) -> None:
    gpus = torch.cuda.device_count()
    if accelerator == "cuda" and not gpus:
        raise ConfigError(
            "training.accelerator is cuda, but torch finds no GPU; see what `dciml doctor` says"
        )
    on_gpus = accelerator != "cpu" and gpus > 0
    found, what = (gpus, "GPUs") if on_gpus else (os.cpu_count() or 1, "processor cores")
    if wanted > found:
        raise ConfigError(f"{wanted} processes are wanted (training.devices), but there are {found} {what}")


def _set_up(config: RunConfig, out: Path, fabric: Fabric, reporter: Reporter) -> Run:
    reporter.stage("set-up: reading data")
    folder = DataFolder.open(Path(config.data.folder))
    pairs = folder.pairs(config.data.train_split)
    training_pairs, held_out_ids = split_off_validation(pairs, config.data.validation_fraction, config.seed)
    held_out = frozenset(held_out_ids)
    vocabulary = Vocabulary.build([pair.sentence for pair in training_pairs], config.text.vocabulary_size)
    vocabulary.check_training_pairs(training_pairs)
    encoder = make_text_encoder(config, vocabulary, str(fabric.device))

    reporter.stage("set-up: sentences", len(pairs))
    encoded = encode_cached(
        encoder, [pair.sentence for pair in pairs], folder.path / "text-cache", reporter.stage_done
    )
    reporter.stage("set-up: model")
    _check_shared_space(config, encoded, folder.store.manifest)

    store = WindowedStore.of(folder.store)
    rule = WindowRule.of(config.long_videos.window_seconds, config.long_videos.overlap_seconds)

    def pair_data(*, is_held_out: bool) -> PairData:
        chosen = [i for i, pair in enumerate(pairs) if (pair.video_id in held_out) is is_held_out]
        some = tuple(pairs[i] for i in chosen)
        windows = long_windows(store, (pair.video_id for pair in some), rule)
        return PairData(
            store, some, encoded.take(chosen), vocabulary, batch_sizes(config), draw_of(config), windows
        )

    card = ModelCard(
        kind="dciml",
        format_version=MODEL_FORMAT,
        store_encoder=folder.store.manifest.encoder,
        text_encoder=encoder.name,
        video_width=folder.store.manifest.width,
        text_width=encoder.width,
        static_width=encoder.static_width,
        vocabulary_size=len(vocabulary),
    )
    refuse_too_large(lambda: build_dual(config, card))
    seed_everything(config.seed)
    model = build_dual(config, card).to(fabric.device)
    optimizers = _on_fabric(fabric, make_optimizers(config, model))
    training, validation = pair_data(is_held_out=False), pair_data(is_held_out=True)
    if model.retrieval.whiten is not None:
        fit_whitening(model.retrieval.whiten, training)
    moments = _moments_of(folder, config, held_out) if config.data.validation_moments else None
    return Run(fabric, config, out, card, model, optimizers, training, validation, moments)


def _moments_of(folder: DataFolder, config: RunConfig, held_out: Collection[str]) -> Moments:
    """The moments of the held-out videos, by query id; those of the other videos are dropped at once."""
    queries = folder.queries(config.data.train_split)
    moments = {q.query_id: q.moments for q in queries if q.video_id in held_out and q.moments}
    if not moments:
        raise ConfigError(
            f"data.validation_moments is on, but no held-out query of the split {config.data.train_split!r} in "
            f"{folder.path} has a moment; set it to false, or import the annotations with their times"
        )
    return moments


def _check_shared_space(config: RunConfig, encoded: EncodedCorpus, rows: StoreManifest) -> None:
    if config.retrieval.local != "shared":
        return
    fits = encoded.sentences is not None and encoded.sentences.shape[1] == rows.width
    is_other = not config.retrieval.local_blocks and same_space(rows.encoder, encoded.encoder_name) is False
    if not fits or is_other:
        raise ConfigError(
            f"retrieval.local: shared needs sentence vectors in the space of the video rows ({rows.encoder}, width "
            f"{rows.width}), but {config.text.encoder} has none such; set it to linear, or use the text encoder that "
            "made the rows"
        )


def _on_fabric(fabric: Fabric, optimizers: Optimizers) -> Optimizers:
    """Let Fabric step the optimisers, so that mixed precision scales gradients back."""
    wrapped: Optimizers = {}
    for name, optimizer in optimizers.items():
        ready = fabric.setup_optimizers(optimizer)
        assert isinstance(ready, torch.optim.Optimizer)
        wrapped[name] = ready
    return wrapped


def make_optimizers(config: RunConfig, model: DualBranch) -> dict[str, torch.optim.Optimizer]:
    """AdamW for each side, or one for both in joint mode; every parameter in exactly one."""
    t = config.training

    def group(parameters: Iterable[nn.Parameter], rate: float) -> dict[str, Any]:
        return {"params": [p for p in parameters if p.requires_grad], "lr": rate, "base_lr": rate}

    local = {name for name, _ in model.side("retrieval") if name.startswith("retrieval.local.")}
    groups = {
        "retrieval": [group((p for name, p in model.side("retrieval") if name not in local), t.retrieval_lr)],
        "grounding": [group((p for _, p in model.side("grounding")), t.grounding_lr)],
    }
    if local:
        groups["retrieval"].append(
            group((p for name, p in model.side("retrieval") if name in local), t.local_lr)
        )
    # Fabric cannot clip the scaled gradients of half precision for a fused optimiser.
    how = {"weight_decay": config.training.weight_decay, "fused": config.training.precision != "16-mixed"}
    if config.training.mode == "joint":
        return {"joint": torch.optim.AdamW([*groups["retrieval"], *groups["grounding"]], **how)}  # type: ignore[arg-type]
    return {side: torch.optim.AdamW(groups[side], **how) for side in SIDES}  # type: ignore[arg-type]


def _epochs(run: Run, reporter: Reporter, on_epoch: Callable[[int], None] | None) -> None:
    fabric, total_epochs = run.fabric, run.config.training.epochs
    steps_per_epoch = len(epoch_groups(run.training, 0, fabric.global_rank, fabric.world_size))
    if steps_per_epoch == 0:
        raise DataError(
            f"there are fewer training videos than processes ({fabric.world_size})",
            mend="start fewer processes",
        )
    reporter.start_training(steps_per_epoch, run.progress.epoch, run.progress.step_in_epoch)
    for epoch in range(run.progress.epoch, total_epochs):
        _one_epoch(run, reporter, epoch, total_steps=steps_per_epoch * total_epochs)
        if (epoch + 1) % run.config.training.validate_every == 0 or epoch + 1 == total_epochs:
            _validate_and_keep(run, reporter, epoch)
        run.progress = replace(run.progress, epoch=epoch + 1, step_in_epoch=0)
        run.save()
        if on_epoch is not None:
            on_epoch(epoch + 1)
        if epoch + 1 < total_epochs:
            run.stop_if_asked()


def _one_epoch(run: Run, reporter: Reporter, epoch: int, total_steps: int) -> None:
    fabric, config = run.fabric, run.config
    chosen = _windows_of_epoch(run, epoch)
    groups = epoch_groups(run.training, epoch, fabric.global_rank, fabric.world_size, chosen)
    reporter.start_epoch(epoch, len(groups), run.progress.step_in_epoch)
    batches = (_make_batch(run, g, epoch) for g in groups[run.progress.step_in_epoch :])
    run.model.train()
    if config.mutual.warm_start and epoch == config.mutual.from_epoch and not run.progress.step_in_epoch:
        changed = run.model.warm_start()
        for optimizer in run.optimizers.values():
            optimizer.state.pop(changed, None)  # what it knows is of other weights
    saved_at = monotonic()
    for batch in on_device(prefetched(batches), fabric.device):
        step = run.progress.step
        # The random state is a function of the step, so a resumed run draws the same dropout.
        torch.manual_seed(config.seed * 1_000_003 + step * fabric.world_size + fabric.global_rank)
        rate = lr_factor(step, total_steps, warmup_fraction=config.training.warmup_fraction)
        set_lr(run.optimizers, rate)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        context = build_step(config, fabric, run.model, epoch, generator)
        values = training_step(context, batch, run.optimizers)
        run.progress = replace(run.progress, step=step + 1, step_in_epoch=run.progress.step_in_epoch + 1)
        reporter.step(step, values, batch.num_sentences * fabric.world_size)
        run.stop_if_asked()
        if monotonic() - saved_at > config.training.checkpoint_every_seconds:
            run.save()
            saved_at = monotonic()


def _make_batch(run: Run, groups: Sequence[Group], epoch: int) -> Batch:
    """In the loader's thread: collated, padded to few sizes and in pinned memory where the device asks for it."""
    batch, device = run.training.collate(groups, epoch), run.fabric.device
    if has_fixed_shapes(run.config, device):
        batch = batch.in_buckets(run.training.sizes)
    return batch.pinned() if device.type == "cuda" else batch


def _windows_of_epoch(run: Run, epoch: int) -> Chosen:
    """The windows that the sentences of long videos have in this epoch; all processes have those of the first.

    They depend on the weights at the beginning of the epoch, so a run that goes on within it reads what it had.
    """
    if not run.training.windows:
        return {}
    file, chosen = run.out / WINDOWS_FILE, {}
    if run.fabric.global_rank == 0:
        if run.progress.step_in_epoch:
            kept = read_json(file)
            chosen = {
                i: kept[pair.query_id] for i, pair in enumerate(run.training.pairs) if pair.query_id in kept
            }
        else:
            chosen = dict(choose_windows(run.model, run.training, run.fabric.device, epoch))
            write_json(file, {run.training.pairs[index].query_id: window for index, window in chosen.items()})
    return run.fabric.broadcast(chosen)


def set_lr(optimizers: dict[str, torch.optim.Optimizer], factor: float) -> None:
    """Scale each group's own learning rate."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def _validate_and_keep(run: Run, reporter: Reporter, epoch: int) -> None:
    """Keep each side's weights of its own best epoch, or the last; at inference the sides do not touch each other."""
    objective, begun = build_objective(run.config), run.progress
    retrieval = run.config.retrieval
    if retrieval.choose_local_weight:
        choose_local_weight(run.model, run.held_out, run.training, run.fabric.device, retrieval.local_weight)
    values = validate(
        run.model, run.held_out, run.fabric.device, moments=run.held_out_moments, objective=objective
    )
    reporter.validation(epoch, values)
    writes = run.fabric.global_rank == 0
    kept = load_tensors(run.out / WEIGHTS_FILE)[0] if writes and run.progress.best else {}
    for side in SIDES:
        better = math.isfinite(values[side]) and values[side] > run.progress.best_of(side)
        if better:
            run.progress = replace(run.progress, best=run.progress.with_best(side, values[side]))
        if better or keeps_last(run.config, run.held_out):
            kept |= {name: parameter.detach() for name, parameter in run.model.side(side)}
    if writes:
        if not (
            run.out / CHECKPOINT_FILE
        ).exists():  # weights alone would look like a model that cannot be trained on
            replace(run, progress=begun).save()
        save_tensors(run.out / WEIGHTS_FILE, kept, {"epoch": str(epoch)})


def fixed_settings(run: Run) -> dict[str, Any]:
    """What decides the result of a run, by dotted key: settings, data, processes. A run resumes only with the same."""
    tree = run.config.model_dump(mode="json", exclude={"name", "answer"})
    for key in ("threads", "accelerator", "devices", "fixed_shapes", "checkpoint_every_seconds"):
        del tree["training"][key]
    del tree["data"]["folder"]  # it may move; what it holds may not change
    return {
        **dict(_flat(without_later_settings(tree), "")),
        "number of processes": run.fabric.world_size,
        "text encoder": run.card.text_encoder,
        "content of the data folder": _data_digest(run),
    }


def _flat(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _data_digest(run: Run) -> str:
    pairs = [astuple(pair) for data in (run.training, run.held_out) for pair in data.pairs]
    return hashlib.sha256(json.dumps([run.training.store.fingerprint, pairs]).encode()).hexdigest()[:16]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # libraries may draw from the global state
    torch.manual_seed(seed)


def _write_folder(run: Run, warnings: Sequence[str]) -> None:
    write_json(run.out / CARD_FILE, run.card.to_json())  # first: by it the folder is known as a run's
    write_text(run.out / SETTINGS_FILE, dump_config(run.config))
    run.training.vocabulary.save(run.out / VOCABULARY_FILE)
    TrainedOn.of(run.training.store, run.training.pairs, run.held_out.by_video()).write(run.out)
    write_json(run.out / RUN_FILE, describe_run(run.config, run.training, run.held_out, warnings))
