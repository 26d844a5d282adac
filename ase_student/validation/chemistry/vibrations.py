"""Geometries and harmonic frequencies of small molecules of the G2 set.

Minimizations start from the MP2(full)/6-31G(d) geometries of :mod:`ase.data.g2` (Curtiss et al., J.
Chem. Phys. 106, 1063, 1997). Bond lengths are also compared with those of these geometries.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import g2

from ase_student.dynamics.bonds import Topology
from ase_student.potentials.base import Potential
from ase_student.validation.chemistry.experiment import Figure, Measured, mean_absolute
from ase_student.validation.chemistry.relaxation import minimize
from ase_student.validation.physics.vibrations import frequencies

ELEMENTS = frozenset((1, 6, 7, 8, 9, 15, 16, 17))
#: Closed-shell molecules that are not suitable for force fields: a singlet carbene.
LEFT_OUT = frozenset(("CH2_s1A1d",))
FMAX = 0.005
STEPS = 200

FREQUENCIES = "frequencies of G2 molecules, mean absolute difference"
BONDS = "bond lengths of G2 molecules, mean absolute difference"


@cache
def molecules() -> dict[str, Atoms]:
    """Return the neutral closed-shell molecules of G2 that have only `ELEMENTS`, by name."""
    molecules_by_name = {}
    for name in sorted(g2.data):
        entry = cast(dict[str, Any], g2.data[name])
        if name in LEFT_OUT or entry.get("magmoms") is not None or entry.get("charges") is not None:
            continue
        atoms = molecule(name)
        if len(atoms) > 1 and ELEMENTS.issuperset(atoms.numbers.tolist()):
            molecules_by_name[name] = atoms
    return molecules_by_name


def bond_lengths(start: Atoms, atoms: Atoms) -> list[float]:
    """Return the lengths in Å in `atoms` of the bonds of `start`, the same molecule."""
    topology = Topology.of(start)
    vectors = atoms.positions[topology.second] - atoms.positions[topology.first]
    once = topology.first < topology.second
    return np.linalg.norm(vectors[once], axis=1).round(5).tolist()


def measure(potential: Potential) -> Measured:
    """Return bond lengths in Å and frequencies in cm⁻¹ at the minimum, by molecule.

    A molecule that reaches no minimum has an entry in ``failed`` instead.
    """
    results: Measured = {"frequencies": {}, "bonds": {}, "failed": {}}
    starts = molecules()
    minima = minimize(potential, list(starts.values()), fmax=FMAX, steps=STEPS)
    for (name, start), minimum in zip(starts.items(), minima, strict=True):
        change = Topology.of(start).change(minimum.atoms) if minimum.converged else minimum.reason
        if change is not None:
            results["failed"][name] = change
            continue
        n_rigid = 5 if _is_linear(start) else 6
        values = frequencies(potential, minimum.atoms)
        vibrations = values[np.argsort(np.abs(values))][n_rigid:]
        results["frequencies"][name] = np.sort(vibrations).round(1).tolist()
        results["bonds"][name] = bond_lengths(start, minimum.atoms)
    return results


def _is_linear(atoms: Atoms) -> bool:
    return bool(atoms.get_moments_of_inertia()[0] < 1e-3)


def compare(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return differences of frequencies and bond lengths, and molecules without a minimum."""
    own = len(measured["failed"]) + len(measured["bonds"])
    figures = [
        mean_absolute(
            BONDS, "Å", "MP2(full)/6-31G(d)", differences=_of_bonds(measured["bonds"], _published())
        ),
    ]
    if teacher is not None:
        common = [name for name in teacher["frequencies"] if name in measured["frequencies"]]
        differences = {
            name: float(
                np.abs(
                    np.subtract(measured["frequencies"][name], teacher["frequencies"][name])
                ).mean()
            )
            for name in common
        }
        figures = [
            mean_absolute(FREQUENCIES, "cm⁻¹", "teacher", differences=differences),
            mean_absolute(
                BONDS, "Å", "teacher", differences=_of_bonds(measured["bonds"], teacher["bonds"])
            ),
            *figures,
        ]
    share = 100.0 * len(measured["failed"]) / own
    names = ", ".join(measured["failed"])
    return [
        *figures,
        Figure("G2 molecules without a minimum", round(share, 1), "%", "", own, names),
    ]


@cache
def _published() -> dict[str, list[float]]:
    return {name: bond_lengths(atoms, atoms) for name, atoms in molecules().items()}


def _of_bonds(
    measured: dict[str, list[float]], reference: dict[str, list[float]]
) -> dict[str, float]:
    """Return the mean absolute difference of bond lengths of each molecule."""
    return {
        name: float(np.abs(np.subtract(lengths, reference[name])).mean())
        for name, lengths in measured.items()
        if name in reference
    }
