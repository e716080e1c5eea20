"""The order in which classes (or domains) arrive."""

from __future__ import annotations

import numpy as np


def arrival_order(n: int, seed: int) -> list[int]:
    """Source numbers in order of arrival: 0 .. n-1 for seed 0, else numpy's legacy permutation for the seed.

    `numpy.random.RandomState(seed).permutation(n)` never changes between versions of numpy. Seed 1993 gives the order
    that iCaRL's successors share (PyCIL, PILOT, SLCA, RanPAC): for 100 classes it begins 68, 56, 78, 8, 23.
    """
    if seed == 0:
        return list(range(n))
    return [int(i) for i in np.random.RandomState(seed).permutation(n)]
