"""dciml: find the video and the moment that a sentence describes.

Learned from (video, sentence) pairs alone; see `dciml.load` and `dciml.open_index`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dciml.version import __version__

if TYPE_CHECKING:
    from dciml.model_folder import Model
    from dciml.search import Searcher

__all__ = ["__version__", "load", "open_index"]


def load(folder: str | Path, device: str = "cpu") -> Model:
    """Load a trained model folder. Imports torch, so that `import dciml` need not."""
    from dciml.model_folder import load_model

    return load_model(Path(folder), device)


def open_index(folder: str | Path, device: str = "cpu") -> Searcher:
    """Open an index folder together with the model that it was built with; of a home, the index that is in use.

    `.answer("a sentence")` gives hits, how sure they are, and the relevance of clips; `.similar(video_id, start, end)`
    finds moments like a given one; `.search("a sentence")` gives hits alone.
    """
    from dciml.model_folder import open_searcher

    return open_searcher(Path(folder), device)
