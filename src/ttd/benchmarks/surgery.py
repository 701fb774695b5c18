"""CLIP Surgery's scores of whole pictures (Li et al., arXiv 2304.05653), from cosines alone.

CLIP Surgery removes from a picture's similarity with a text what it shares with texts that say nothing about it.
Written for the class token x (the pooled embedding, which its changed attention leaves as it is), normalised texts
t_1 ... t_K and the embedding e of the empty sentence, its products summed over channels are

    without a label set      x (t_k - e)                = cos_k - cos(x, e)
    with the label set       w_k cos_k - mean_j(w_j cos_j),   w = K softmax(2 cos)

The TTD paper compares with the first one (footnote 5). CLIP Surgery's public code applies the formula to the maps of
single pictures and holds no multi-label evaluation; taking its class token, where it gives a score of the whole
picture, was decided here. As in that code the empty sentence is put into the same templates as the classes.

Shapes: S pictures, K classes.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

SHARPNESS = 2.0  # of the weights' softmax, in CLIP Surgery's code


def without_empty(cosines: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Scores without a label set: float [S,K] cosines less the cosine with the empty sentence, float [S].

    It subtracts one number per picture: the order of a picture's classes stays, that of a class's pictures changes.
    """
    return np.asarray(cosines - empty[:, None])


def without_common(cosines: np.ndarray) -> np.ndarray:
    """Scores with the label set, float [S,K] from cosines [S,K]: what all classes share is taken away.

    The weights hold back what an obvious class adds to the others.
    """
    weighted = cosines * softmax(SHARPNESS * cosines, axis=1) * cosines.shape[1]
    return np.asarray(weighted - weighted.mean(axis=1, keepdims=True))
