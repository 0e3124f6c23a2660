"""Train both branches from (video, sentence) pairs. The whole story of a run, top to bottom."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from lightning_fabric import Fabric

from dciml.build import MODEL_FORMAT, ModelCard, build_dual, make_text_encoder
from dciml.config import RunConfig, dump_config
from dciml.datasets.folder import DataFolder
from dciml.datasets.split import split_off_validation
from dciml.errors import ModelError
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.vocabulary import Vocabulary
from dciml.files import write_json, write_text
from dciml.models.dual import DualBranch
from dciml.training.checkpoint import (
    CHECKPOINT_FILE,
    WEIGHTS_FILE,
    Optimizers,
    Progress,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from dciml.training.loader import PairData, epoch_groups, prefetched
from dciml.training.progress import Reporter
from dciml.training.schedule import lr_factor
from dciml.training.steps import Step, training_step
from dciml.training.validation import validate
from dciml.types import TrainingPair

SIDES = ("retrieval", "grounding")


@dataclass
class Run:
    """The state of a run between two steps."""

    fabric: Fabric
    config: RunConfig
    out: Path
    model: DualBranch
    optimizers: Optimizers
    training: PairData
    held_out: PairData
    progress: Progress

    def save(self) -> None:
        """Write the checkpoint; only the first process writes."""
        if self.fabric.global_rank == 0:
            save_checkpoint(self.out, self.model, self.optimizers, self.progress, comparable(self.config))


def train(config: RunConfig, out: Path, *, resume: bool = False, quiet: bool = False) -> Path:
    """Run to the end and leave a model folder in `out`.

    Raises:
        ModelError: `out` holds a run and `resume` is not set, or the run there has other settings.
        DataError: the data folder cannot be used.
        TrainingError: a loss is not finite.
    """
    if (out / CHECKPOINT_FILE).exists() and not resume:
        raise ModelError(f"{out}: holds a run already; go on with --resume, or choose another --out")
    fabric = make_fabric(config)
    run = _set_up(config, out, fabric)
    if resume and (out / CHECKPOINT_FILE).exists():
        run.progress = load_checkpoint(out, run.model, run.optimizers, comparable(config))
    reporter = Reporter(out, enabled=fabric.global_rank == 0, quiet=quiet)
    with reporter.open(run.progress, config.training.epochs):
        _epochs(run, reporter)
    return out


def make_fabric(config: RunConfig) -> Fabric:
    """Processes, device and precision as the settings say; under torchrun, as torchrun says."""
    settings = config.training
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    strategy = "ddp" if settings.devices > 1 or _under_torchrun() else "auto"
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        strategy=strategy,
    )
    if settings.devices > 1 or _under_torchrun():
        fabric.launch()
    return fabric


def _under_torchrun() -> bool:
    import os

    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def _set_up(config: RunConfig, out: Path, fabric: Fabric) -> Run:
    folder = DataFolder.open(Path(config.data.folder))
    pairs = folder.pairs(config.data.train_split)
    training_pairs, held_out_ids = split_off_validation(pairs, config.data.validation_fraction, config.seed)
    held_out_pairs = [pair for pair in pairs if pair.video_id in set(held_out_ids)]
    vocabulary = Vocabulary.build([pair.sentence for pair in training_pairs], config.text.vocabulary_size)
    vocabulary.check_training_pairs(training_pairs)
    encoder = make_text_encoder(config, vocabulary)

    def pair_data(some: list[TrainingPair]) -> PairData:
        corpus = EncodedCorpus.build(encoder, [pair.sentence for pair in some])
        return PairData(folder.store, tuple(some), corpus, vocabulary, config)

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
    seed_everything(config.seed)
    model = build_dual(config, card).to(fabric.device)
    if fabric.global_rank == 0:
        _write_folder(out, config, card, vocabulary)
    optimizers = _on_fabric(fabric, make_optimizers(config, model))
    return Run(
        fabric,
        config,
        out,
        model,
        optimizers,
        pair_data(list(training_pairs)),
        pair_data(held_out_pairs),
        Progress(),
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
    rates = {"retrieval": config.training.retrieval_lr, "grounding": config.training.grounding_lr}
    groups = {
        side: {"params": [p for _, p in model.side(side)], "lr": rates[side], "base_lr": rates[side]}
        for side in SIDES
    }
    decay = config.training.weight_decay
    if config.training.mode == "joint":
        return {"joint": torch.optim.AdamW(list(groups.values()), weight_decay=decay, fused=True)}
    return {side: torch.optim.AdamW([groups[side]], weight_decay=decay, fused=True) for side in SIDES}


def _epochs(run: Run, reporter: Reporter) -> None:
    fabric, total_epochs = run.fabric, run.config.training.epochs
    steps_per_epoch = len(epoch_groups(run.training, 0, fabric.global_rank, fabric.world_size))
    for epoch in range(run.progress.epoch, total_epochs):
        with _saved_on_interrupt(run):
            _one_epoch(run, reporter, epoch, total_steps=steps_per_epoch * total_epochs)
        if (epoch + 1) % run.config.training.validate_every == 0 or epoch + 1 == total_epochs:
            _validate_and_keep(run, reporter, epoch)
        run.progress = replace(run.progress, epoch=epoch + 1, step_in_epoch=0)
        run.save()


def _one_epoch(run: Run, reporter: Reporter, epoch: int, total_steps: int) -> None:
    fabric, config = run.fabric, run.config
    groups = epoch_groups(run.training, epoch, fabric.global_rank, fabric.world_size)
    reporter.start_epoch(epoch, len(groups), run.progress.step_in_epoch)
    batches = (run.training.collate(g, epoch) for g in groups[run.progress.step_in_epoch :])
    run.model.train()
    saved_at = monotonic()
    for batch in prefetched(batches):
        step = run.progress.step
        # The random state is a function of the step, so a resumed run draws the same dropout.
        torch.manual_seed(config.seed * 1_000_003 + step * fabric.world_size + fabric.global_rank)
        set_lr(run.optimizers, lr_factor(config, step, total_steps))
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        context = Step(fabric, run.model, config, epoch, generator)
        values = training_step(context, batch.to(fabric.device), run.optimizers)
        run.progress = replace(run.progress, step=step + 1, step_in_epoch=run.progress.step_in_epoch + 1)
        reporter.step(step, values, len(batch.video_of_query) * fabric.world_size)
        if monotonic() - saved_at > config.training.checkpoint_every_seconds:
            run.save()
            saved_at = monotonic()


def set_lr(optimizers: dict[str, torch.optim.Optimizer], factor: float) -> None:
    """Scale each group's own learning rate."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


@contextmanager
def _saved_on_interrupt(run: Run) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        run.save()
        raise


def _validate_and_keep(run: Run, reporter: Reporter, epoch: int) -> None:
    """Keep each side's weights of its own best epoch; at inference the sides do not touch each other."""
    values = validate(run.model, run.held_out, run.fabric.device)
    reporter.validation(epoch, values)
    weights = run.out / WEIGHTS_FILE
    kept = load_tensors(weights)[0] if weights.exists() and run.progress.best else {}
    for side in SIDES:
        if not math.isfinite(values[side]) or values[side] <= run.progress.best_of(side):
            continue
        kept |= {name: parameter.detach() for name, parameter in run.model.side(side)}
        run.progress = replace(run.progress, best=run.progress.with_best(side, values[side]))
    if run.fabric.global_rank == 0:
        save_tensors(weights, kept, {"epoch": str(epoch)})


def comparable(config: RunConfig) -> str:
    """The settings that decide the result of a run, as text; a run resumes only with the same ones."""
    neutral = {"threads": None, "accelerator": "auto", "checkpoint_every_seconds": 120.0}
    return dump_config(config.model_copy(update={"training": config.training.model_copy(update=neutral)}))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # libraries may draw from the global state
    torch.manual_seed(seed)


def _write_folder(out: Path, config: RunConfig, card: ModelCard, vocabulary: Vocabulary) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", dump_config(config))
    write_json(out / "model.json", card.to_json())
    vocabulary.save(out / "vocabulary.json")
    packages = ("dciml", "torch", "numpy", "lightning-fabric", "transformers", "safetensors")
    versions = {name: _version(name) for name in packages}
    write_json(
        out / "run.json",
        {"git_revision": _git_revision(), "python": platform.python_version(), "packages": versions},
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
