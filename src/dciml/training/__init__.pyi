from .checkpoint import (
    Optimizers,
    RunProgress,
    load_checkpoint,
    load_tensors,
    refuse_misfit,
    refuse_too_large,
    remove_half_written,
    save_checkpoint,
    save_tensors,
)
from .loader import Chosen, Draw, Group, PairData, epoch_groups, on_device, prefetched
from .progress import Reporter, Stopped, StopRequest
from .steps import Step, any_process, easiness, hard_pool_size, loss_weights, lr_factor, training_step
from .validation import Moments, Objective, choose_local_weight, choose_windows, validate
from .whitening import fit_whitening

__all__ = [
    "Chosen",
    "Draw",
    "Group",
    "Moments",
    "Objective",
    "Optimizers",
    "PairData",
    "Reporter",
    "RunProgress",
    "Step",
    "StopRequest",
    "Stopped",
    "any_process",
    "choose_local_weight",
    "choose_windows",
    "easiness",
    "epoch_groups",
    "fit_whitening",
    "hard_pool_size",
    "load_checkpoint",
    "load_tensors",
    "loss_weights",
    "lr_factor",
    "on_device",
    "prefetched",
    "refuse_misfit",
    "refuse_too_large",
    "remove_half_written",
    "save_checkpoint",
    "save_tensors",
    "training_step",
    "validate",
]
