"""Refinement: a picture and masks in, masks that follow the picture's edges out (PAMR, DenseCRF, SAM-HQ).

The three rooms load their own heavy libraries (pydensecrf, transformers) when they are first used.
"""

from ttd.refine.pamr import pamr

# Functions named like their room must be bound here at once: Python would bind the module to the name later.
__all__ = ["pamr"]
