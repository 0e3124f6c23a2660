"""The method, as docs/METHOD.md has it. Read `retrieval`, `grounding`, `mutual` and `losses`; the others serve these.

A name is loaded when it is first asked for: `terms` is read by the settings, which must not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
