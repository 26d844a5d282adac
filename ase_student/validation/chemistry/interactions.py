"""Interaction energies of the S22 dimers, at their minima and pulled apart.

Geometries and CCSD(T) energies are those of :mod:`ase.data.s22`: S22 of Jurecka et al., Phys. Chem.
Chem. Phys. 8, 1985 (2006), with energies of Takatani et al., J. Chem. Phys. 132, 144104 (2010), and
S22x5 of Grafova et al., J. Chem. Theory Comput. 6, 2365 (2010).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.data import s22
from scipy.optimize import brentq

from ase_student.potentials.base import Potential
from ase_student.validation.chemistry.experiment import (
    KCAL,
    Figure,
    Measured,
    mean_absolute,
)
from ase_student.validation.physics.checks import ask

#: Closest distances between two atoms of different molecules, Å, to which dimers are pulled apart.
DISTANCES = (3.0, 3.5, 3.75, 4.0, 4.25, 4.5, 5.0, 6.0, 7.0)
#: The distances of the criterion "S22 pulled apart to 3.5-4.5 Å".
BAR_DISTANCES = (3.5, 3.75, 4.0, 4.25, 4.5)
#: Distances of S22x5, as multiples of the distance at the minimum.
MULTIPLES = ("0.9", "1.2", "1.5", "2.0")


def dimer(name: str, multiple: str | None = None) -> tuple[Atoms, Atoms]:
    """Return the two molecules of a dimer of S22, or of S22x5 at a multiple of its distance."""
    atoms = s22.create_s22_system(name, multiple)
    n_first = s22.get_number_of_dimer_atoms(name)[0]
    return atoms[:n_first], atoms[n_first:]


def closest_distance(first: Atoms, second: Atoms) -> float:
    """Return the shortest distance between an atom of one molecule and one of the other, Å."""
    vectors = first.positions[:, None] - second.positions
    return float(np.linalg.norm(vectors, axis=2).min())


def pulled_apart(first: Atoms, second: Atoms, distance: float) -> Atoms | None:
    """Return a dimer whose second molecule is shifted until the closest distance is `distance`.

    The molecule is shifted, not turned, along the line from the center of mass of the first
    molecule to that of the second. None if the molecules are already farther apart.

    Parameters
    ----------
    first, second : Atoms
    distance : float, Å
        Between the two closest atoms, hydrogen included, of different molecules.
    """
    line = second.get_center_of_mass() - first.get_center_of_mass()
    line /= np.linalg.norm(line)

    def excess(shift: float) -> float:
        moved = second.copy()
        moved.translate(shift * line)
        return closest_distance(first, moved) - distance

    if excess(0.0) > 0.0:
        return None
    # The closest distance grows at most as fast as the shift.
    shift = brentq(excess, 0.0, 3.0 * distance + 10.0, xtol=1e-6)
    moved = second.copy()
    moved.translate(shift * line)
    return first + moved


def interaction_energies(
    potential: Potential, dimers: Sequence[Atoms], pairs: Sequence[tuple[Atoms, Atoms]]
) -> list[float]:
    """Return energies of dimers minus those of their separate molecules, in kcal/mol.

    Parameters
    ----------
    potential : Potential
    dimers : sequence of Atoms
    pairs : sequence of pair of Atoms
        The molecules of each dimer, in the geometries that they have in it. Several dimers may
        share the same pair object; it is evaluated once.
    """
    distinct = {id(pair): pair for pair in pairs}
    monomers = [atoms for pair in distinct.values() for atoms in pair]
    energies = np.array([answer.energy for answer in ask(potential, [*dimers, *monomers])])
    apart = energies[len(dimers) :].reshape(-1, 2).sum(axis=1)
    of_pair = dict(zip(distinct, apart.tolist(), strict=True))
    together = energies[: len(dimers)].tolist()
    return [
        (energy - of_pair[id(pair)]) / KCAL for energy, pair in zip(together, pairs, strict=True)
    ]


def _dimers_of(name: str) -> Iterator[tuple[tuple[str, str], Atoms, tuple[Atoms, Atoms]]]:
    """Yield kind and distance, dimer, and pair of molecules, for all geometries of a dimer."""
    pair = dimer(name)
    yield ("s22", ""), pair[0] + pair[1], pair
    for distance in DISTANCES:
        apart = pulled_apart(*pair, distance)
        if apart is not None:
            yield ("apart", f"{distance:.2f}"), apart, pair
    for multiple in MULTIPLES:
        scaled_pair = dimer(name, multiple)
        yield ("s22x5", multiple), scaled_pair[0] + scaled_pair[1], scaled_pair


def measure(potential: Potential) -> Measured:
    """Return interaction energies in kcal/mol: ``s22``, ``s22x5`` and ``apart``, by dimer."""
    entries = [(name, *entry) for name in s22.s22 for entry in _dimers_of(name)]
    energies = interaction_energies(
        potential, [dimers for _, _, dimers, _ in entries], [pair for *_, pair in entries]
    )
    results: Measured = {"s22": {}, "s22x5": {}, "apart": {}}
    for (name, (kind, place), _, _), energy in zip(entries, energies, strict=True):
        if kind == "s22":
            results[kind][name] = round(energy, 4)
        else:
            results[kind].setdefault(name, {})[place] = round(energy, 4)
    return results


def published() -> Measured:
    """Return CCSD(T) energies of S22 and S22x5 in kcal/mol, in the form of :func:`measure`."""
    return {
        "s22": {name: round(s22.get_interaction_energy_cc(name) / KCAL, 4) for name in s22.s22},
        "s22x5": {
            name: {
                multiple: round(
                    s22.get_interaction_energy_s22x5(name, multiple, correct_offset=False) / KCAL, 4
                )
                for multiple in MULTIPLES
            }
            for name in s22.s22
        },
    }


#: Names of the figures that students are judged by.
AT_MINIMUM = "S22 interaction energies, mean absolute difference"
PULLED_APART = "S22 pulled apart to 3.5–4.5 Å, mean absolute difference"


def compare(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return differences from the teacher, and from CCSD(T)."""
    reference = published()
    figures = []
    if teacher is not None:
        figures += [
            mean_absolute(
                AT_MINIMUM, "kcal/mol", "teacher", differences=_differences(measured, teacher)
            ),
            mean_absolute(
                PULLED_APART,
                "kcal/mol",
                "teacher",
                differences=_apart(measured, teacher, BAR_DISTANCES),
            ),
            _binding(measured, teacher),
        ]
    wider = {
        f"{name} at {multiple} times": measured["s22x5"][name][multiple] - energy
        for name, energies in reference["s22x5"].items()
        for multiple, energy in energies.items()
        if multiple in ("1.2", "1.5", "2.0")
    }
    return [
        *figures,
        mean_absolute(
            AT_MINIMUM, "kcal/mol", "CCSD(T)", differences=_differences(measured, reference)
        ),
        mean_absolute(
            "S22x5 at 1.2, 1.5 and 2 times the distance, mean absolute difference",
            "kcal/mol",
            "CCSD(T)",
            differences=wider,
        ),
    ]


def _binding(measured: Measured, teacher: Measured) -> Figure:
    """Return the relative difference of the summed energies of all dimers at 3.5 to 4.5 Å."""
    pairs = [
        (measured["apart"][name][f"{distance:.2f}"], energies[f"{distance:.2f}"])
        for name, energies in teacher["apart"].items()
        for distance in BAR_DISTANCES
    ]
    ours, theirs = (sum(column) for column in zip(*pairs, strict=True))
    return Figure(
        "S22 pulled apart to 3.5–4.5 Å, difference of the summed energies",
        round(100.0 * (ours / theirs - 1.0), 1),
        "%",
        "teacher",
        len(pairs),
    )


def _differences(measured: Measured, reference: Measured) -> dict[str, float]:
    return {name: measured["s22"][name] - energy for name, energy in reference["s22"].items()}


def _apart(measured: Measured, teacher: Measured, distances: Sequence[float]) -> dict[str, float]:
    places = [f"{distance:.2f}" for distance in distances]
    return {
        f"{name} at {place} Å": measured["apart"][name][place] - energies[place]
        for name, energies in teacher["apart"].items()
        for place in places
    }
