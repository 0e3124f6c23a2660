"""Whether models can run on a device, before anything is loaded."""

from __future__ import annotations

from dciml.errors import ConfigError


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or does not have.

    Raises:
        ConfigError: says which there are.

    >>> check_device("cpu")
    """
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}; use cpu, cuda or cuda:N") from error
    if wanted.type not in ("cpu", "cuda") and not (
        wanted.type == "mps" and torch.backends.mps.is_available()
    ):
        raise ConfigError(f"there is no device {device!r} here; use cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        has = f"{count} of them" if count else "none; use cpu, or see what `dciml doctor` says"
        raise ConfigError(f"the device {device!r} is not here: torch finds {has}")
