"""From a sentence to moments: engines, the searcher of an index, the choice of spans, and how sure an answer is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
