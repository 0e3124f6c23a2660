"""Which card, which packages, and what the machine reaches at best: `gpu_machine.py FILE [--quick]`."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from machine import peak_bandwidth, peak_gflops, write_figures  # noqa: E402  # it lies there

NEEDED = {
    "lightning_fabric": "lightning-fabric", "pydantic": "pydantic", "textblob": "textblob", "jaxtyping": "jaxtyping",
    "lazy_loader": "lazy-loader", "h5py": "h5py", "safetensors": "safetensors", "transformers": "transformers",
    "beartype": "beartype", "pytest": "pytest", "pytest_timeout": "pytest-timeout", "tensorboard": "tensorboard",
    "rich": "rich", "typer": "typer", "yaml": "pyyaml", "jinja2": "jinja2", "PIL": "pillow", "numpy": "numpy",
}  # fmt: skip
OPTIONAL = {"av": "av", "faiss": "faiss-cpu"}


def found(packages: dict[str, str]) -> dict[str, str | None]:
    """Versions; None of what cannot be imported."""
    versions: dict[str, str | None] = {}
    for module, package in packages.items():
        try:
            import_module(module)
        except ImportError:
            versions[package] = None
            continue
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # it came with another package
            versions[package] = "?"
    return versions


def main() -> None:
    """Write what is here; ends with an error where a needed package is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--quick", action="store_true", help="on the processor, with small matrices")
    options = parser.parse_args()
    device = torch.device("cpu" if options.quick or not torch.cuda.is_available() else "cuda")
    size, megabytes = (256, 8) if device.type == "cpu" else (None, None)
    types = {"float32": torch.float32, "bf16": torch.bfloat16}
    needed = found(NEEDED)
    figures = {
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "packages": needed | found(OPTIONAL),
        "peak_gflops": {name: peak_gflops(device, size, dtype) for name, dtype in types.items()},
        "peak_gb_per_second": peak_bandwidth(device, megabytes),
    }
    write_figures(options.file, figures)
    print(figures)
    missing = [package for package, number in needed.items() if number is None]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; gather them with scripts/gpu_pack.sh")


if __name__ == "__main__":
    main()
