"""Run all checks of physics on a student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_student.data.readers.base import Frame, StructureReader
from ase_student.potentials.base import Potential, as_potential
from ase_student.testing import small_structures
from ase_student.validation.extras import progress_bar
from ase_student.validation.models import ModelSpec
from ase_student.validation.physics.agreement import check_backends
from ase_student.validation.physics.checks import Check, RefusedError, Subject
from ase_student.validation.physics.cutoff import check_cutoff
from ase_student.validation.physics.derivatives import check_derivatives
from ase_student.validation.physics.dimers import check_dimers
from ase_student.validation.physics.dynamics import check_energy_conservation, check_thermostat
from ase_student.validation.physics.symmetry import check_symmetries
from ase_student.validation.physics.torsions import check_torsions
from ase_student.validation.physics.vibrations import check_vibrations
from ase_student.validation.physics.water import check_water

#: Number of molecules that are taken from the data, and their smallest and largest size.
N_MOLECULES = 4
SMALLEST, LARGEST = 6, 60


@dataclass(frozen=True)
class Lengths:
    """Length of each run of dynamics, ps; 0 leaves its check out.

    Attributes
    ----------
    nve, nvt, water : float
    """

    nve: float = 2.0
    nvt: float = 2.0
    water: float = 0.0


def molecules_of(frames: StructureReader, indices: Sequence[int], seed: int) -> dict[str, Atoms]:
    """Return some molecules of a file, drawn at random, by formula and index.

    Structures with periodic axes, or with too few or too many atoms, are not taken. If the file
    records how structures were sampled, those from dynamics are preferred.
    """
    suitable = [i for i in indices if SMALLEST <= frames.sizes[i] <= LARGEST]
    order = np.random.default_rng(seed).permutation(len(suitable))[: 20 * N_MOLECULES]
    read = frames.read(sorted(suitable[place] for place in order))
    molecules = [frame for frame in read if isinstance(frame, Frame) and not frame.atoms.pbc.any()]
    molecules.sort(key=lambda frame: frame.source != "md")
    return {
        f"{frame.atoms.get_chemical_formula()} (structure {frame.index})": frame.atoms
        for frame in molecules[:N_MOLECULES]
    }


def subject_of(spec: ModelSpec, molecules: dict[str, Atoms], elements: tuple[int, ...]) -> Subject:
    """Return the student and the structures that the checks use.

    Parameters
    ----------
    spec : ModelSpec
    molecules : dict of str to Atoms
    elements : tuple of int
        Elements in the data.
    """
    calculator, precise = spec.open_quietly(), spec.open_precise()
    known_elements = set(calculator.info.elements)
    structures = {
        name: atoms
        for name, atoms in small_structures().items()
        if set(atoms.numbers) <= known_elements
    }
    usable = {
        name: atoms for name, atoms in molecules.items() if set(atoms.numbers) <= known_elements
    }
    return Subject(
        potential=as_potential(calculator),
        precise=as_potential(calculator if precise is None else precise),
        is_precise=precise is not None,
        cutoff=calculator.info.cutoff,
        elements=tuple(sorted(known_elements & set(elements))),
        structures={**structures, **usable},
        molecules=usable,
    )


def run_checks(
    spec: ModelSpec, subject: Subject, lengths: Lengths, *, teacher: Potential | None = None
) -> list[Check]:
    """Return the outcome of every check; a check that the student refuses to answer has failed.

    Parameters
    ----------
    spec : ModelSpec
    subject : Subject
    lengths : Lengths
    teacher : Potential, optional
        Without a teacher, vibrations and torsions are not checked.
    """
    checks: dict[str, Callable[[], list[Check]]] = {
        "symmetries": lambda: check_symmetries(subject),
        "cutoff": lambda: check_cutoff(subject),
        "derivatives": lambda: check_derivatives(subject),
        "dimers": lambda: check_dimers(subject),
        "backends": lambda: check_backends(subject, spec),
    }
    if lengths.nve:
        checks["NVE"] = lambda: check_energy_conservation(subject, lengths.nve)
    if lengths.nvt:
        checks["NVT"] = lambda: check_thermostat(subject, lengths.nvt)
    if lengths.water:
        checks["water"] = lambda: check_water(subject, lengths.water)
    if teacher is not None:
        checks["vibrations"] = lambda: check_vibrations(subject, teacher)
        checks["torsions"] = lambda: check_torsions(subject, teacher)
    results: list[Check] = []
    with progress_bar(len(checks), "check", label=spec.name) as bar:
        for name, check in checks.items():
            try:
                results.extend(check())
            except RefusedError as error:
                results.append(Check(name, False, detail=f"no answer: {error}"))
            bar.update()
    return results
