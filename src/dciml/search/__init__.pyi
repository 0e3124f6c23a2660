from .calibration import Calibration, fit_calibration, read_calibration
from .contrast import contrast_windows
from .engines import BaselineEngine, DualEngine, Engine, Space, pooled_clips
from .long_videos import WindowedIds, select_whole, whole_seconds
from .searcher import Answer, Searcher, VideoStores

__all__ = [
    "Answer",
    "BaselineEngine",
    "Calibration",
    "DualEngine",
    "Engine",
    "Searcher",
    "Space",
    "VideoStores",
    "WindowedIds",
    "contrast_windows",
    "fit_calibration",
    "pooled_clips",
    "read_calibration",
    "select_whole",
    "whole_seconds",
]
