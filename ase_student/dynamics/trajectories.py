"""Molecular dynamics of many structures at once, moved by a student or a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms

from ase_student.dynamics import langevin
from ase_student.dynamics.langevin import Forces, Positions
from ase_student.potentials.base import Potential, forces_of


def relaxed(structures: Sequence[Atoms], driver: Potential, n_steps: int) -> list[Atoms]:
    """Return the structures after some short steps downhill, see `langevin.descended`.

    Positions of structures without forces are NaN.
    """
    if not structures:
        return []
    joint = _joined(structures, driver, None)
    with np.errstate(all="ignore"):
        positions = langevin.descended(_positions(structures), joint, n_steps)
    return _separated(structures, positions)


def trajectories(
    structures: Sequence[Atoms],
    driver: Potential,
    temperatures: Sequence[float],
    *,
    n_steps: int,
    rng: np.random.Generator,
    confined: bool = False,
) -> Iterator[list[Atoms]]:
    """Yield all structures after every `n_steps` steps of Langevin dynamics, without end.

    They are moved as one system, each at its own temperature, but do not interact. If there are no
    forces for a structure, its positions are NaN from then on; the others continue.

    Parameters
    ----------
    structures : sequence of Atoms
        Initial structures, which are not changed; velocities are drawn for the temperatures.
    driver : Potential
    temperatures : sequence of float, K
        One per structure.
    n_steps : int
        Steps of `langevin.TIMESTEP` between the yielded structures.
    rng : numpy.random.Generator
    confined : bool
        Whether a soft wall keeps the parts of a cluster together, see `langevin.wall`.

    Yields
    ------
    list of Atoms
        New objects, in the order of `structures`.
    """
    if not structures:
        return
    sizes = [len(atoms) for atoms in structures]
    steps = langevin.langevin(
        np.concatenate([atoms.numbers for atoms in structures]),
        _positions(structures),
        _joined(
            structures,
            driver,
            [langevin.radius_of(atoms.positions) for atoms in structures] if confined else None,
        ),
        np.repeat(np.asarray(temperatures, dtype=np.float64), sizes)[:, None],
        rng,
    )
    while True:
        yield _separated(structures, langevin.positions_after(steps, n_steps))


def _joined(
    structures: Sequence[Atoms], driver: Potential, radii: Sequence[float] | None
) -> Forces:
    """Return the forces on all structures as a function of all their positions."""
    atom_ends = np.cumsum([len(atoms) for atoms in structures])
    working = [
        Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for atoms in structures
    ]

    def joint(positions: Positions) -> Positions:
        result = np.full_like(positions, np.nan)
        parts = np.split(positions, atom_ends[:-1])
        alive = [i for i, part in enumerate(parts) if np.isfinite(part).all()]
        for i in alive:
            working[i].positions = parts[i]
        forces_by_structure = forces_of(driver, [working[i] for i in alive]) if alive else []
        for i, forces in zip(alive, forces_by_structure, strict=True):
            rows = slice(atom_ends[i] - len(parts[i]), atom_ends[i])
            result[rows] = forces
            if radii is not None:
                result[rows] += langevin.wall(parts[i], radii[i])
        return result

    return joint


def _positions(structures: Sequence[Atoms]) -> Positions:
    return np.concatenate([atoms.positions for atoms in structures])


def _separated(structures: Sequence[Atoms], positions: Positions) -> list[Atoms]:
    """Return new structures at these positions; if any position is not finite, all are NaN."""
    separated = []
    atom_ends = np.cumsum([len(atoms) for atoms in structures])
    for atoms, part in zip(structures, np.split(positions, atom_ends[:-1]), strict=True):
        part = part if np.isfinite(part).all() else np.full_like(part, np.nan)
        separated.append(Atoms(atoms.numbers, part, cell=atoms.cell, pbc=atoms.pbc))
    return separated
