"""Minimization of many molecules or crystals side by side, with ASE's optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixInternals
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_student.potentials.base import Potential, Refusal

#: A step of the optimizer moves no atom by more than this, Å.
LARGEST_STEP = 0.1
#: A crystal whose volume has changed by more than this factor has lost its structure.
LARGEST_SWELLING = 2.0


@dataclass(frozen=True)
class Minimum:
    """The result of a minimization.

    Attributes
    ----------
    atoms : Atoms
    energy : float, eV
        NaN if the potential never returned an energy.
    reason : str
        Why the minimization failed; empty if it converged.
    """

    atoms: Atoms
    energy: float
    reason: str = ""

    @property
    def converged(self) -> bool:
        """Whether all forces are below the limit."""
        return not self.reason


class _Minimization:
    """One structure, moved by an ASE optimizer with energies and forces that the caller gives."""

    def __init__(self, atoms: Atoms, as_movable: Callable[[Atoms], Any]) -> None:
        self.atoms = atoms.copy()
        self.atoms.calc = None
        self.volume = self.atoms.get_volume() if self.atoms.cell.rank == 3 else None
        self.moved = as_movable(self.atoms)
        self.optimizer: BFGS | None = None
        self.energy, self.reason, self.converged = float("nan"), "", False

    def advance(self, answer: Any, fmax: float) -> None:
        """Make a step with the potential's answer for the current structure."""
        if isinstance(answer, Refusal):
            self.reason = answer.reason
            return
        if not (np.isfinite(answer.energy) and np.isfinite(answer.forces).all()):
            self.reason = "energy or forces are not finite"
            return
        self.atoms.calc = SinglePointCalculator(
            self.atoms, energy=answer.energy, forces=answer.forces, stress=answer.stress
        )
        self.energy = answer.energy
        forces = self.moved.get_forces()
        if np.linalg.norm(forces, axis=1).max() <= fmax:
            self.converged = True
            return
        if self.optimizer is None:
            self.optimizer = BFGS(self.moved, logfile=None, maxstep=LARGEST_STEP)
        self.optimizer.step()
        if self.volume is not None:
            ratio = self.atoms.get_volume() / self.volume
            if not 1.0 / LARGEST_SWELLING < ratio < LARGEST_SWELLING:
                self.reason = f"its volume changed by a factor of {ratio:.2f}"

    def result(self) -> Minimum:
        """Return the result, without the calculator."""
        atoms = self.atoms.copy()
        atoms.set_constraint()
        reason = self.reason or ("" if self.converged else "not converged")
        return Minimum(atoms, self.energy, reason)


def minimize(
    potential: Potential, structures: Sequence[Atoms], *, fmax: float = 0.02, steps: int = 300
) -> list[Minimum]:
    """Return the nearest minimum of each structure; cells stay as they are.

    Parameters
    ----------
    potential : Potential
    structures : sequence of Atoms
    fmax : float, eV/Å
        Largest force at a minimum.
    steps : int
        Largest number of steps.
    """
    return _minimize(
        potential, [_Minimization(atoms, _itself) for atoms in structures], fmax, steps
    )


def minimize_with_torsion(
    potential: Potential,
    structures: Sequence[Atoms],
    torsions: Sequence[Sequence[int]],
    *,
    fmax: float = 0.02,
    steps: int = 300,
) -> list[Minimum]:
    """Return the nearest minimum of each structure at its present value of one torsion angle.

    Parameters
    ----------
    potential : Potential
    structures : sequence of Atoms
    torsions : sequence of four int
        Atoms of the torsion of each structure.
    fmax : float, eV/Å
    steps : int
    """
    minimizations = []
    for atoms, torsion in zip(structures, torsions, strict=True):
        held = atoms.copy()
        angle = held.get_dihedral(*torsion)
        held.set_constraint(FixInternals(dihedrals_deg=[[angle, list(torsion)]]))
        minimizations.append(_Minimization(held, _itself))
    return _minimize(potential, minimizations, fmax, steps)


def minimize_crystals(
    potential: Potential, structures: Sequence[Atoms], *, fmax: float = 0.02, steps: int = 300
) -> list[Minimum]:
    """Return the nearest minimum of crystals with respect to cell and positions.

    Parameters
    ----------
    potential : Potential
        Must give stress.
    structures : sequence of Atoms
    fmax : float, eV/Å
        Largest force on atoms and on the cell (:class:`ase.filters.FrechetCellFilter`).
    steps : int
    """
    minimizations = [_Minimization(atoms, FrechetCellFilter) for atoms in structures]
    return _minimize(potential, minimizations, fmax, steps)


def _itself(atoms: Atoms) -> Atoms:
    return atoms


def _minimize(
    potential: Potential, minimizations: list[_Minimization], fmax: float, steps: int
) -> list[Minimum]:
    for _ in range(steps):
        active = [
            minimization
            for minimization in minimizations
            if not (minimization.converged or minimization.reason)
        ]
        if not active:
            break
        answers = potential.evaluate([_bare(minimization.atoms) for minimization in active])
        for minimization, answer in zip(active, answers, strict=True):
            minimization.advance(answer, fmax)
    return [minimization.result() for minimization in minimizations]


def _bare(atoms: Atoms) -> Atoms:
    """Return a copy without constraints, which must not be passed to a calculator."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
