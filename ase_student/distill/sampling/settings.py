"""Settings of the sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ase_student.distill.molecules.species import Species

#: Name of the force field that needs neither a student nor a teacher.
MMFF94 = "mmff94"

#: Frames per conformer, and smallest and largest number of conformers of a molecule.
FRAMES_PER_CONFORMER = 10
MIN_CONFORMERS = 2
MAX_CONFORMERS = 20
#: Steps of 2 fs before each frame; clusters take longer because their hydrogen bonds must form.
MOLECULE_STEPS = 200
CLUSTER_STEPS = 250
MOLECULE_TEMPERATURES = ((300.0, 1000.0),)
CLUSTER_TEMPERATURES = ((300.0, 600.0),)
STRONG_DISPLACEMENTS = (0.03, 0.09)
CLUSTER_MINIMISATION_STEPS = 50
#: Short steps downhill from geometries of MMFF94, or of no force field, before another potential's
#: dynamics.
DESCENT_STEPS = 50


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of the sampling of every molecule and structure.

    Attributes
    ----------
    md, displaced, cluster, contact : int
        Frames per molecule from dynamics, from strong displacement, from the dynamics of a cluster
        that contains it, and from such a cluster with one molecule pressed in or pulled away. For a
        structure of a file or a crystal: frames from dynamics, and displaced frames per scale.
    small_factor, biomolecule_factor : int
        Factor of the number of frames for molecules of the built-in lists.
    max_atoms, max_cluster_atoms : int
        Number of atoms of the largest molecule, and of the largest cluster or biomolecule.
    dynamics : str
        Potential of the dynamics: 'mmff94', a student or a teacher.
    temperatures : tuple of (low, high), K
        Each trajectory takes one of these ranges, and a temperature in it. If empty, the default
        ranges are used, which are lower for clusters.
    steps : int or None
        Steps of 2 fs before each frame; None takes the default numbers.
    displacements : tuple of float, Å
        Standard deviations of the displacements of structures of files and crystals.
    strain : float
        Largest component of the strain of such structures along their periodic axes.
    foreign : bool
        Whether structures of files and crystals are unlike everything that a student will be used
        for. Their source is then 'foreign', and the training ranges of a student leave them out.
    part : str or None
        If given, only molecules of this part of the split are sampled.
    split_seed : int
        Seed of the split, see :func:`ase_student.data.splits.split_of`.
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
    """Return the number of conformers of a molecule, or of trajectories of a structure.

    The frames are divided among them.

    >>> n_trajectories(SamplingSettings(md=3)), n_trajectories(SamplingSettings(md=50))
    (2, 5)
    """
    n_conformers = -(-max(settings.md, settings.displaced) // FRAMES_PER_CONFORMER)
    return min(max(n_conformers, MIN_CONFORMERS), MAX_CONFORMERS)


@dataclass(frozen=True)
class MoleculeTask:
    """A molecule to sample, and the factor of its number of frames."""

    species: Species
    n_times: int = 1


def _drawn(ranges: tuple[tuple[float, float], ...], rng: np.random.Generator) -> float:
    return float(rng.uniform(*ranges[int(rng.integers(len(ranges)))]))
