"""The figures of a report: recalls of videos and moments, chance, blind spans, intervals; NumPy alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
