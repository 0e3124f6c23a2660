"""Sentences that suit a corpus: what was asked of its videos in the data folder that the features came from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from dciml.datasets.folder import DATA_FILE, DataFolder
from dciml.errors import DcimlError
from dciml.service.live import Snapshot
from dciml.service.settings import ServiceSettings

NUM_EXAMPLES = 8
MAX_CHARS = 90


def example_sentences(now: Snapshot, settings: ServiceSettings) -> list[str]:
    """Sentences about videos of the index, from places at even distances, one a video; empty when none are known.

    An index may be anybody's: a data folder that it names is read only where it lies beside the index, below a root
    that the user gave, or where the user named the features.
    """
    asked: dict[str, str] = {}
    folder = (settings.features or now.index.store_path()).resolve().parent
    is_known = settings.features is not None or any(
        folder.is_relative_to(root.resolve()) for root in settings.played_roots
    )
    for video_id, sentence in _asked(folder) if is_known else ():
        if video_id in now and len(sentence) <= MAX_CHARS:
            asked.setdefault(video_id, sentence)
    sentences = list(dict.fromkeys(asked.values()))
    number = min(NUM_EXAMPLES, len(sentences))
    return [sentences[place * len(sentences) // number] for place in range(number)]


@lru_cache(maxsize=4)
def _asked(folder: Path) -> tuple[tuple[str, str], ...]:
    """(video id, sentence) of all queries of a data folder; empty when it is none."""
    if not (folder / DATA_FILE).is_file():
        return ()
    try:
        data = DataFolder.open(folder)
        return tuple((pair.video_id, pair.sentence) for split in data.splits for pair in data.pairs(split))
    except DcimlError:
        return ()
