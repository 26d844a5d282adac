"""Bootstrap: the uncertainty of a figure that comes from the choice of structures.

Structures, not atoms, are resampled: the atoms of a structure are not independent. Each draw
weights every structure by a Poisson number of mean 1, which for many structures is the usual
bootstrap, and needs neither all structures at once nor their number (Chamandy et al., Estimating
Uncertainty for Massive Data Streams, Google, 2012).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Number of draws, and the share of them that an interval contains.
N_DRAWS = 200
CONFIDENCE = 0.95


def draws(seed: int, piece: int, n: int) -> NDArray[np.float64]:
    """Return the weights of the structures of a piece: first all 1, then those of each draw.

    Parameters
    ----------
    seed : int
    piece : int
        Number of the piece in its file: the same piece always has the same weights.
    n : int
        Number of structures in the piece.

    Returns
    -------
    (1 + N_DRAWS, n) float64
    """
    rng = np.random.default_rng([seed, piece])
    weights = np.ones((1 + N_DRAWS, n))
    weights[1:] = rng.poisson(1.0, size=(N_DRAWS, n))
    return weights


def estimate(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return a figure and its confidence interval.

    Parameters
    ----------
    values : (1 + N_DRAWS,) float64
        The figure for all structures, then for each draw.

    Returns
    -------
    dict
        ``value`` and ``interval`` (lower and upper end); None if it is undefined, as the interval
        of a mean over one structure.
    """
    value = float(values[0])
    drawn = values[1:][np.isfinite(values[1:])]
    interval = None
    if np.isfinite(value) and len(drawn) > N_DRAWS // 2:
        tail = 50.0 * (1.0 - CONFIDENCE)
        low, high = np.percentile(drawn, [tail, 100.0 - tail]).tolist()
        interval = [low, high] if high - low > 1e-12 * abs(value) else None
    return {"value": value if np.isfinite(value) else None, "interval": interval}
