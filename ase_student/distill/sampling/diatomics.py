"""Pairs of atoms at all distances, for reasonable forces between elements that rarely meet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from ase_student.data.sources import DIATOMIC
from ase_student.distill.molecules import species
from ase_student.distill.sampling.frames import SampledFrames
from ase_student.dynamics.bonds import CLASH

#: Å; longer than the cutoff of every student, so that free atoms are included.
LONGEST = 6.0


def diatomics(symbols: Sequence[str], n_distances: int, seed: int = 0) -> SampledFrames:
    """Return two atoms of every pair of elements at random distances.

    Distances lie between the shortest that is no clash and `LONGEST`, one in each of `n_distances`
    equal intervals.

    Parameters
    ----------
    symbols : sequence of str
    n_distances : int
        Number of distances of each pair.
    seed : int

    Raises
    ------
    ValueError
        If a symbol is not that of an element.

    Examples
    --------
    >>> len(diatomics(["H", "C"], 5).structures)
    15
    """
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) < 1:
            raise ValueError(f"'{symbol}' is the symbol of no element.")
    frames = SampledFrames()
    for pair in combinations_with_replacement(sorted(set(symbols)), 2):
        name = "-".join(pair)
        rng = species.generator(seed, name)
        shortest = CLASH * sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair)
        steps = (np.arange(n_distances) + rng.uniform(size=n_distances)) / max(n_distances, 1)
        for i, distance in enumerate(shortest + (LONGEST - shortest) * steps):
            frames.add(Atoms(pair, [[0, 0, 0], [distance, 0, 0]]), f"{name}#{i}", DIATOMIC)
    return frames
