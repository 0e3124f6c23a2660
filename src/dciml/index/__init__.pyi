from .catalogue import Catalogue, IndexOptions
from .clip_index import CATALOGUE_FILE, ClipIndex, VideoMatch, verify_index
from .state import VideoMatches
from .videos import CatalogueVideo, VideoDetails, VideoFilter

__all__ = [
    "CATALOGUE_FILE",
    "Catalogue",
    "CatalogueVideo",
    "ClipIndex",
    "IndexOptions",
    "VideoDetails",
    "VideoFilter",
    "VideoMatch",
    "VideoMatches",
    "verify_index",
]
