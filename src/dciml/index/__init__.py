"""An index: fused clip vectors, codes to search them (FAISS), and a catalogue of videos (SQLite); no torch."""

from dciml.index.catalogue import IndexOptions
from dciml.index.clip_index import ClipIndex, VideoMatch, verify_index
from dciml.index.state import VideoMatches
from dciml.index.videos import CatalogueVideo, VideoDetails, VideoFilter

__all__ = [
    "CatalogueVideo",
    "ClipIndex",
    "IndexOptions",
    "VideoDetails",
    "VideoFilter",
    "VideoMatch",
    "VideoMatches",
    "verify_index",
]
