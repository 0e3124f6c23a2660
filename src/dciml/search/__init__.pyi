from .apart import EvidencePart, captions_beside
from .calibration import Calibration, fit_calibration, read_calibration
from .compose import Answer
from .contrast import contrast_windows
from .engines import BaselineEngine, DualEngine, Engine, Space, pooled_clips
from .long_videos import WindowedIds, select_whole, whole_seconds
from .searcher import Searcher
from .shown import ShownAnswer, ShownHit, grouped
from .stores import VideoStores

__all__ = [
    "Answer",
    "BaselineEngine",
    "Calibration",
    "DualEngine",
    "Engine",
    "EvidencePart",
    "Searcher",
    "ShownAnswer",
    "ShownHit",
    "Space",
    "VideoStores",
    "WindowedIds",
    "captions_beside",
    "contrast_windows",
    "fit_calibration",
    "grouped",
    "pooled_clips",
    "read_calibration",
    "select_whole",
    "whole_seconds",
]
