from .apart import EvidencePart, all_captions, captions_of
from .calibration import Calibration, fit_calibration, read_calibration
from .engines import BaselineEngine, DualEngine, Engine, Space, pooled_clips
from .long_videos import WindowedIds, select_whole, whole_seconds
from .searcher import Answer, Searcher
from .view import ShownHit, View, grouped

__all__ = [
    "Answer",
    "BaselineEngine",
    "Calibration",
    "DualEngine",
    "Engine",
    "EvidencePart",
    "Searcher",
    "ShownHit",
    "Space",
    "View",
    "WindowedIds",
    "all_captions",
    "captions_of",
    "fit_calibration",
    "grouped",
    "pooled_clips",
    "read_calibration",
    "select_whole",
    "whole_seconds",
]
