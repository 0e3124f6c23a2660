from .baselines import Chance, blind_spans, chance_recalls
from .corpus_moments import MAX_ANSWERS, lenient, strict
from .grounding import moment_recalls
from .intervals import Bootstrap, Interval
from .per_query import FloatArray, PerQuery, concatenate
from .reliability import Bin, expected_calibration_error, reliability_bins
from .video_retrieval import recalls, score_blocks, true_ranks

__all__ = [
    "MAX_ANSWERS",
    "Bin",
    "Bootstrap",
    "Chance",
    "FloatArray",
    "Interval",
    "PerQuery",
    "blind_spans",
    "chance_recalls",
    "concatenate",
    "expected_calibration_error",
    "lenient",
    "moment_recalls",
    "recalls",
    "reliability_bins",
    "score_blocks",
    "strict",
    "true_ranks",
]
