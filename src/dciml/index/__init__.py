"""An index: fused clip vectors, codes to search them (FAISS), and a catalogue of videos (SQLite); no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
