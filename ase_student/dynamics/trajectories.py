"""Molecular dynamics of many structures at once, moved by a student or a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms

from ase_student.dynamics import langevin
from ase_student.dynamics.langevin import Forces, Positions
from ase_student.potentials.base import Potential, forces_of


def relaxed(structures: Sequence[Atoms], driver: Potential, n_steps: int) -> list[Atoms]:
    """Return the structures after some careful steps downhill, see `langevin.descended`.

    Positions are NaN where there are no forces.
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
    """Yield all structures every some steps of Langevin dynamics, for ever.

    They are moved as one system, each at its own temperature, but do not feel each other. One for
    which there are no forces ends: its positions are NaN from then on, and the others go on.

    Parameters
    ----------
    structures : sequence of Atoms
        Where to begin; velocities are drawn for the temperatures. They are not changed.
    driver : Potential
    temperatures : sequence of float, K
        One per structure.
    n_steps : int
        Steps of `langevin.TIMESTEP` between what is yielded.
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
        yield _separated(structures, langevin.after(steps, n_steps))


def _joined(
    structures: Sequence[Atoms], driver: Potential, radii: Sequence[float] | None
) -> Forces:
    """Return the forces on all structures as a function of all their positions."""
    ends = np.cumsum([len(atoms) for atoms in structures])
    working = [Atoms(one.numbers, one.positions, cell=one.cell, pbc=one.pbc) for one in structures]

    def joint(positions: Positions) -> Positions:
        result = np.full_like(positions, np.nan)
        parts = np.split(positions, ends[:-1])
        alive = [i for i, part in enumerate(parts) if np.isfinite(part).all()]
        for i in alive:
            working[i].positions = parts[i]
        answers = forces_of(driver, [working[i] for i in alive]) if alive else []
        for i, answer in zip(alive, answers, strict=True):
            own = slice(ends[i] - len(parts[i]), ends[i])
            result[own] = answer
            if radii is not None:
                result[own] += langevin.wall(parts[i], radii[i])
        return result

    return joint


def _positions(structures: Sequence[Atoms]) -> Positions:
    return np.concatenate([atoms.positions for atoms in structures])


def _separated(structures: Sequence[Atoms], positions: Positions) -> list[Atoms]:
    """Return new structures at these positions; all NaN where any is not finite."""
    separated = []
    ends = np.cumsum([len(atoms) for atoms in structures])
    for atoms, part in zip(structures, np.split(positions, ends[:-1]), strict=True):
        part = part if np.isfinite(part).all() else np.full_like(part, np.nan)
        separated.append(Atoms(atoms.numbers, part, cell=atoms.cell, pbc=atoms.pbc))
    return separated
