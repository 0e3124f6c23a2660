from .baselines import CosineSpace, SharedSpace, pad_words
from .batch import Batch, BatchSizes, QueryBatch, collate_queries, collate_videos, hidden_positions
from .fast import fixed_shapes
from .grounding import GroundingBranch, Watched
from .layers import Whitening, as_teacher
from .losses import GroundingLosses, RetrievalLosses, info_nce, soft_max_pool
from .mutual import DualBranch, best_clip, proposal_feature
from .outputs import BestClip, EncodedVideos, LocalOutput, RetrievalOutput, Selection
from .retrieval import LocalScale, RetrievalBranch, score_matrix
from .terms import BY_DISTRIBUTION, HELD_OUT_TERMS, PATHWAY_TERMS, PUBLISHED_WEIGHTS, SIDES, TERMS, PlaceForm

__all__ = [
    "BY_DISTRIBUTION",
    "HELD_OUT_TERMS",
    "PATHWAY_TERMS",
    "PUBLISHED_WEIGHTS",
    "SIDES",
    "TERMS",
    "Batch",
    "BatchSizes",
    "BestClip",
    "CosineSpace",
    "DualBranch",
    "EncodedVideos",
    "GroundingBranch",
    "GroundingLosses",
    "LocalOutput",
    "LocalScale",
    "PlaceForm",
    "QueryBatch",
    "RetrievalBranch",
    "RetrievalLosses",
    "RetrievalOutput",
    "Selection",
    "SharedSpace",
    "Watched",
    "Whitening",
    "as_teacher",
    "best_clip",
    "collate_queries",
    "collate_videos",
    "fixed_shapes",
    "hidden_positions",
    "info_nce",
    "pad_words",
    "proposal_feature",
    "score_matrix",
    "soft_max_pool",
]
