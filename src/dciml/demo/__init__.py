"""The demo: a corpus of drawn videos with sentences, and the page of its answers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
