"""Molecular crystals, relaxed with their cells, compared with cells from diffraction.

A minimum has neither zero-point motion nor thermal expansion, which make a crystal of molecules
some 1 to 2 % longer along each axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

from ase_student.dynamics.bonds import Topology
from ase_student.potentials.base import Potential
from ase_student.validation.chemistry.experiment import Figure, Measured, mean_absolute
from ase_student.validation.chemistry.relaxation import minimize_crystals

FMAX = 0.01
STEPS = 300
AXES = "abc"

LENGTHS = "cell lengths of molecular crystals, mean absolute difference"
VOLUMES = "volumes of molecular crystals, mean difference"
LOST = "molecular crystals lost"


def urea() -> Atoms:
    """Return urea at 12 K, neutron diffraction (Swaminathan et al., Acta Cryst. B40, 300, 1984)."""
    # Cell and coordinates are those of entry UREAXX12 of the Cambridge Structural Database.
    return crystal(
        "CONHH",
        [
            (0.0, 0.5, 0.3260),
            (0.0, 0.5, 0.5953),
            (0.1459, 0.6459, 0.1766),
            (0.2575, 0.7575, 0.2827),
            (0.1441, 0.6441, -0.0380),
        ],
        spacegroup=113,
        cellpar=[5.565, 5.565, 4.684, 90, 90, 90],
    )


def carbon_dioxide() -> Atoms:
    """Return CO2 at 150 K, x-ray diffraction (Simon and Peters, Acta Cryst. B36, 2750, 1980)."""
    # The reference was checked; no second source of the numbers was found. The C-O bond is 1.154 Å.
    return crystal(
        "CO",
        [(0.0, 0.0, 0.0), (0.1185, 0.1185, 0.1185)],
        spacegroup=205,
        cellpar=[5.624] * 3 + [90] * 3,
    )


def benzene() -> Atoms:
    """Return benzene at 138 K, neutron diffraction (Bacon et al., Proc. R. Soc. 279, 98, 1964)."""
    # Cell and coordinates are those of entry BENZEN01 of the Cambridge Structural Database.
    return crystal(
        "CCCHHH",
        [
            (-0.0607, 0.1393, -0.0069),
            (-0.1377, 0.0447, 0.1260),
            (-0.0770, -0.0958, 0.1325),
            (-0.1046, 0.2502, -0.0123),
            (-0.2458, 0.0781, 0.2241),
            (-0.1371, -0.1681, 0.2360),
        ],
        spacegroup=61,
        cellpar=[7.39, 9.42, 6.81, 90, 90, 90],
    )


def ice() -> Atoms:
    """Return ice XI (D2O) at 5 K, neutron diffraction (Leadbetter et al., JCP 82, 424, 1985)."""
    # The cell was checked against citations of the reference, the coordinates were not. They only
    # serve as the start of a minimization.
    return crystal(
        "OOHHH",
        [
            (0.0, 0.6646, 0.0631),
            (0.5, 0.8255, -0.0631),
            (0.0, 0.6636, 0.1963),
            (0.0, 0.5363, 0.0183),
            (0.6766, 0.7748, -0.0183),
        ],
        spacegroup=36,
        cellpar=[4.465, 7.859, 7.292, 90, 90, 90],
    )


#: Crystals by name. Cell and structure of a crystal are from the same source.
CRYSTALS: dict[str, Callable[[], Atoms]] = {
    "urea": urea,
    "CO2": carbon_dioxide,
    "benzene": benzene,
    "ice XI": ice,
}


def measure(potential: Potential) -> Measured:
    """Return cell lengths in Å, angles in ° and volumes in Å³ of each crystal at its minimum.

    A crystal whose bonds change, whose structure is lost or whose minimization does not converge
    has an entry in ``failed`` instead.
    """
    starts = {name: make() for name, make in CRYSTALS.items()}
    minima = minimize_crystals(potential, list(starts.values()), fmax=FMAX, steps=STEPS)
    results: Measured = {"cells": {}, "failed": {}}
    for (name, start), minimum in zip(starts.items(), minima, strict=True):
        reason = minimum.reason
        if not reason and len(Topology.of(start).first) != len(Topology.of(minimum.atoms).first):
            reason = "bonds changed"
        if reason:
            results["failed"][name] = reason
            continue
        cell = minimum.atoms.cell
        results["cells"][name] = {
            "lengths": np.round(cell.lengths(), 4).tolist(),
            "angles": np.round(cell.angles(), 3).tolist(),
            "volume": round(float(cell.volume), 3),
        }
    return results


def compare(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return differences of cells from experiment, and from the teacher's if these are known."""
    published = {
        name: {"lengths": make().cell.lengths().tolist(), "volume": float(make().cell.volume)}
        for name, make in CRYSTALS.items()
    }
    figures = _differences(measured["cells"], published, "experiment")
    if teacher is not None:
        figures += _differences(measured["cells"], teacher["cells"], "teacher")
    lost = len(measured["failed"])
    detail = "; ".join(f"{name}: {reason}" for name, reason in measured["failed"].items())
    return [
        *figures,
        Figure(LOST, float(lost), f"of {len(CRYSTALS)}", "", len(CRYSTALS), detail),
    ]


def _differences(cells: Measured, references: Measured, against: str) -> list[Figure]:
    names = [name for name in cells if name in references]
    lengths = {
        f"{name}, {axis}": 100.0 * (ours / theirs - 1.0)
        for name in names
        for axis, ours, theirs in zip(
            AXES, cells[name]["lengths"], references[name]["lengths"], strict=True
        )
    }
    volumes = [100.0 * (cells[name]["volume"] / references[name]["volume"] - 1.0) for name in names]
    mean = round(float(np.mean(volumes)), 2) if volumes else None
    return [
        mean_absolute(LENGTHS, "%", against, differences=lengths),
        Figure(VOLUMES, mean, "%", against, len(volumes)),
    ]
