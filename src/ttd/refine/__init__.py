"""Refinement: an image and maps in, maps that follow the image's edges out (PAMR, DenseCRF, SAM-HQ).

Heavy libraries (pydensecrf, transformers, scipy) load when they are first used.
"""

# Bound here at once, not on first use: `pamr` and `crf` are functions in modules of the same name, and
# importing a module later would put the module in the function's place.
from ttd.refine.base import Refiner, find_refiner, register_refiner
from ttd.refine.crf import crf
from ttd.refine.pamr import pamr
from ttd.refine.sam import SAMRefiner

__all__ = ["Refiner", "SAMRefiner", "crf", "find_refiner", "pamr", "register_refiner"]
