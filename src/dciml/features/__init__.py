"""Feature rows: encoders of pictures and words, other people's files, extraction, and the store on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
