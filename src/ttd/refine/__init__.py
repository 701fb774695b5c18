"""Refinement: an image and masks in, masks that follow the image's edges out (PAMR, DenseCRF, SAM-HQ).

The rooms load their own heavy libraries (pydensecrf, transformers, scipy) when they are first used.
"""

# Bound here at once, not on first use: `pamr` and `crf` are functions in rooms of the same name, and
# importing a room later would put the room in the function's place.
from ttd.refine.crf import crf
from ttd.refine.pamr import pamr
from ttd.refine.sam import SAMRefiner

__all__ = ["SAMRefiner", "crf", "pamr"]
