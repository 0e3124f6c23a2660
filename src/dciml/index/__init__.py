"""An index: fused clip vectors (FAISS) and a catalogue of videos (SQLite). NumPy and FAISS only, no torch."""

from dciml.index.clip_index import ClipIndex, VideoMatch, VideoMatches
from dciml.index.videos import CatalogueVideo, VideoDetails, VideoFilter

__all__ = ["CatalogueVideo", "ClipIndex", "VideoDetails", "VideoFilter", "VideoMatch", "VideoMatches"]
