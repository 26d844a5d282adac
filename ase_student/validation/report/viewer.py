"""Viewer of the worst structures in 3D: chemiscope, embedded in the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from ase import Atoms

from ase_student.validation.extras import extra

#: Length of the arrow of the largest force of a structure, Å.
LONGEST = 2.5


def script() -> str:
    """Return chemiscope's JavaScript program, which is embedded in the page.

    Raises
    ------
    ImportError
        If chemiscope is not installed.
    """
    extra("chemiscope")
    program = files("chemiscope") / "sphinx" / "static" / "chemiscope.min.js"
    text = program.read_text(encoding="utf-8")
    # These sequences would end or change the HTML element that contains the program.
    return re.sub(r"<(/script|!--)", r"<\\\1", text, flags=re.IGNORECASE)


def dataset(structures: Sequence[Atoms], students: Sequence[str]) -> str:
    """Return structures as the JSON that chemiscope reads.

    Parameters
    ----------
    structures : sequence of Atoms
        As :func:`ase_student.validation.accuracy.worst.worst_structures` returns them.
    students : sequence of str
        Title of the student whose errors each structure shows.
    """
    chemiscope = extra("chemiscope")
    bare = [
        Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for atoms in structures
    ]
    teacher = [np.asarray(atoms.calc.results["forces"]) for atoms in structures]
    student = [atoms.arrays["student_forces"] for atoms in structures]
    energies = [
        1000.0 * (atoms.info["student_energy"] - atoms.calc.results["energy"]) / len(atoms)
        if "energy" in atoms.calc.results
        else float("nan")
        for atoms in structures
    ]
    rmse = "force RMSE"
    properties: dict[str, Any] = {
        rmse: _of_structures([atoms.info["force_rmse"] for atoms in structures], "eV/Å"),
        "atoms": _of_structures([len(atoms) for atoms in structures], ""),
        "student": _of_structures(list(students), ""),
        "source": _of_structures([atoms.info["source"] for atoms in structures], ""),
        "structure in the file": _of_structures([atoms.info["index"] for atoms in structures], ""),
        "force error": {
            "target": "atom",
            "values": np.concatenate([atoms.arrays["force_error"] for atoms in structures]),
            "units": "eV/Å",
        },
    }
    if np.isfinite(energies).all():
        properties["energy error"] = _of_structures(energies, "meV/atom")
    document = chemiscope.create_input(
        bare,
        metadata={
            "name": "worst structures",
            "description": "Arrows are forces: blue the teacher's, orange the student's.",
        },
        properties=properties,
        environments=chemiscope.all_atomic_environments(bare),
        shapes={
            "teacher": _arrows(teacher, teacher, "#0072B2"),
            "student": _arrows(student, teacher, "#D55E00"),
        },
        settings=chemiscope.quick_settings(
            x="atoms",
            y=rmse,
            map_color=rmse,
            structure_settings={
                "color": {"property": "force error"},
                "shape": "teacher,student",
                "unitCell": any(atoms.pbc.any() for atoms in structures),
            },
        ),
    )
    # In a JSON string this means the same character, and it cannot end an HTML element.
    return json.dumps(document, default=_plain).replace("<", "\\u003c")


def _of_structures(values: Sequence[Any], units: str) -> dict[str, Any]:
    described = {"target": "structure", "values": list(values)}
    return {**described, "units": units} if units else described


def _arrows(forces: Sequence[Any], teacher: Sequence[Any], color: str) -> dict[str, Any]:
    """Return arrows of forces, scaled by the largest of the teacher's in the same structure."""
    vectors = [
        structure_forces
        * (LONGEST / max(float(np.linalg.norm(teacher_forces, axis=1).max()), 1e-9))
        for structure_forces, teacher_forces in zip(forces, teacher, strict=True)
    ]
    return {
        "kind": "arrow",
        "parameters": {
            "global": {"baseRadius": 0.06, "headRadius": 0.12, "headLength": 0.18, "color": color},
            "atom": [
                {"vector": vector} for vector in np.round(np.concatenate(vectors), 4).tolist()
            ],
        },
    }


def _plain(value: Any) -> Any:
    return value.tolist()
