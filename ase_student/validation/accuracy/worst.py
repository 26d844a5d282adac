"""The structures with a student's largest errors, for inspection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_student.data.readers.base import Frame, StructureReader
from ase_student.files import replaced_when_complete
from ase_student.potentials.base import Evaluation, Potential


def worst_structures(
    potential: Potential, frames: StructureReader, worst: Sequence[dict[str, Any]]
) -> list[Atoms]:
    """Return structures with the labels of the teacher and the predictions of the student.

    Parameters
    ----------
    potential : Potential
        The student.
    frames : StructureReader
    worst : sequence of dict
        ``worst_structures`` of the metrics.

    Returns
    -------
    list of Atoms
        In the order of `worst`. The teacher's labels are those of the calculator; arrays
        ``student_forces`` (eV/Å) and ``force_error`` (its norm, eV/Å), and in ``info``
        ``student_energy`` (eV), ``force_rmse`` (eV/Å), ``source`` and ``index`` in the file.
    """
    indices = sorted(entry["index"] for entry in worst)
    read = {frame.index: frame for frame in frames.read(indices) if isinstance(frame, Frame)}
    structures = []
    for entry in worst:
        frame = read[entry["index"]]
        answer = potential.evaluate([frame.atoms])[0]
        if not isinstance(answer, Evaluation) or frame.forces is None:
            continue
        atoms = frame.atoms.copy()
        labels: dict[str, Any] = {"forces": frame.forces}
        if frame.energy is not None:
            labels["energy"] = frame.energy
        if frame.stress is not None:
            labels["stress"] = frame.stress
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.arrays["student_forces"] = answer.forces
        atoms.arrays["force_error"] = np.linalg.norm(answer.forces - frame.forces, axis=1)
        atoms.info = {
            "index": frame.index,
            "source": frame.source,
            "student_energy": answer.energy,
            "force_rmse": entry["force_rmse"],
        }
        structures.append(atoms)
    return structures


def write_worst(path: Path, structures: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ."""
    with replaced_when_complete(path) as temporary:
        write(temporary, list(structures), format="extxyz")
