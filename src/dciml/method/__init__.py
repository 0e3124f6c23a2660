"""The method, as docs/METHOD.md has it. Read `retrieval`, `grounding`, `mutual` and `losses`; the others serve these.

Nothing is imported here: `terms` is read by the settings, which must not load torch.
"""
