"""Training: batches of pairs, the two steps in turns, validation, checkpoints, progress."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
