"""Sentences and moments: readers of published and own annotation files, and data folders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
