"""Makes a copy of one video that every browser plays, as a process of its own: `python -m dciml.service.convert`.

As `dciml.service.encode`, and for the same reason; the order is a `ConvertOrder`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from dciml.errors import DataError
from dciml.processes import GIBIBYTE
from dciml.service.guarded import Tell, carry_out
from dciml.video_cut import convert_video

WITHIN = (1920, 1080)
MEMORY_BYTES = 3 * GIBIBYTE
TELL_SECONDS = 0.5


@dataclass(frozen=True)
class ConvertOrder:
    """What to do: convert `file` into `out`, which may grow to `most_bytes`."""

    file: str
    out: str
    most_bytes: int

    def to_json(self) -> str:
        """As standard input takes it."""
        return json.dumps(asdict(self))


def convert(order: ConvertOrder, tell: Tell) -> None:
    """Carry out an order. Raises DataError: damaged, or too large."""
    out, told = Path(order.out), -TELL_SECONDS

    def on_progress(share: float) -> None:
        nonlocal told
        if monotonic() < told + TELL_SECONDS:
            return
        told = monotonic()
        tell({"progress": round(share, 3)})
        _check_size(out, order.most_bytes)

    convert_video(Path(order.file), out, within=WITHIN, on_progress=on_progress)
    _check_size(out, order.most_bytes)


def _check_size(out: Path, most_bytes: int) -> None:
    if out.stat().st_size > most_bytes:
        most = f"{most_bytes / 1e6:,.0f} MB"
        raise DataError(
            f"the converted copy would be larger than {most}, the most that this server keeps",
            mend="convert the file yourself",
        )


if __name__ == "__main__":
    carry_out(lambda text, tell: convert(ConvertOrder(**json.loads(text)), tell), MEMORY_BYTES)
