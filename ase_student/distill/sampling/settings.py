"""What to sample of every molecule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ase_student.distill.molecules.species import Species

#: Name of the force field that needs neither a student nor a teacher.
MMFF94 = "mmff94"

#: Frames that come from one conformer if there are many, and how many conformers there are.
FRAMES_PER_CONFORMER = 10
FEWEST_CONFORMERS = 2
MOST_CONFORMERS = 20
#: Steps of 2 fs before a frame is kept; a cluster has to find its hydrogen bonds first.
MOLECULE_STEPS = 200
CLUSTER_STEPS = 250
MOLECULE_TEMPERATURES = ((300.0, 1000.0),)
CLUSTER_TEMPERATURES = ((300.0, 600.0),)
STRONG_DISPLACEMENTS = (0.03, 0.09)


CLUSTER_MINIMISATION_STEPS = 50


#: Careful steps downhill that take MMFF94's geometries, or those of no force field, to others.
DESCENT_STEPS = 50


@dataclass(frozen=True)
class SamplingSettings:
    """What to sample of every molecule.

    Attributes
    ----------
    md, displaced, cluster, contact : int
        Frames per molecule from dynamics, from strong displacement, from the dynamics of a cluster
        that holds it, and from such a cluster with one molecule pressed in or pulled away. Of a
        file's structure or a crystal: frames from dynamics, and displaced ones of each scale.
    small_factor, biomolecule_factor : int
        How many times more frames the molecules of the built-in lists get.
    max_atoms, max_cluster_atoms : int
        Largest molecule, and largest cluster or molecule of life.
    dynamics : str
        'mmff94', a student or a teacher.
    temperatures : tuple of (low, high), K
        Each trajectory takes one of these ranges, and a temperature in it. Empty takes the usual
        ones, which are cooler for clusters.
    steps : int or None
        Steps of 2 fs before each frame; None takes the usual numbers.
    displacements : tuple of float, Å
        Scales at which structures of files and crystals are displaced.
    strain : float
        Largest component of the strain of such structures along their periodic axes.
    foreign : bool
        Whether structures of files and crystals are like nothing that a student will be used for;
        they are called so, and what a student has seen leaves them out.
    part : str or None
        Only molecules of this part of the split.
    split_seed : int
        Which split, see `split.split_of`.
    seed : int
    """

    md: int = 3
    displaced: int = 2
    cluster: int = 1
    contact: int = 1
    small_factor: int = 6
    biomolecule_factor: int = 4
    max_atoms: int = 45
    max_cluster_atoms: int = 70
    dynamics: str = MMFF94
    temperatures: tuple[tuple[float, float], ...] = ()
    steps: int | None = None
    displacements: tuple[float, ...] = (0.02, 0.05, 0.1)
    strain: float = 0.03
    foreign: bool = False
    part: str | None = None
    split_seed: int = 0
    seed: int = 0

    @property
    def molecule_steps(self) -> int:
        """Steps before each frame of a molecule."""
        return self.steps or MOLECULE_STEPS

    @property
    def cluster_steps(self) -> int:
        """Steps before each frame of a cluster."""
        return self.steps or CLUSTER_STEPS

    def molecule_temperature(self, rng: np.random.Generator) -> float:
        """Draw the temperature of a molecule, K."""
        return _drawn(self.temperatures or MOLECULE_TEMPERATURES, rng)

    def cluster_temperature(self, rng: np.random.Generator) -> float:
        """Draw the temperature of a cluster, K."""
        return _drawn(self.temperatures or CLUSTER_TEMPERATURES, rng)


def n_trajectories(settings: SamplingSettings) -> int:
    """Return how many conformers of a molecule, or trajectories of a structure, share the frames.

    >>> n_trajectories(SamplingSettings(md=3)), n_trajectories(SamplingSettings(md=50))
    (2, 5)
    """
    wanted = -(-max(settings.md, settings.displaced) // FRAMES_PER_CONFORMER)
    return min(max(wanted, FEWEST_CONFORMERS), MOST_CONFORMERS)


@dataclass(frozen=True)
class MoleculeTask:
    """A molecule, and how many times the usual number of frames it gets."""

    species: Species
    n_times: int = 1


def _drawn(ranges: tuple[tuple[float, float], ...], rng: np.random.Generator) -> float:
    return float(rng.uniform(*ranges[int(rng.integers(len(ranges)))]))
