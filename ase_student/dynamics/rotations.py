"""Random orientations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a rotation matrix, uniform over all orientations."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    # The signs make the distribution uniform (Mezzadri, Notices AMS 54, 592, 2007).
    matrix = matrix * np.sign(np.diag(triangle))
    return matrix if np.linalg.det(matrix) > 0 else -matrix
