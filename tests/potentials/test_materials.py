"""Teachers for materials: forces and stress are derivatives of the energy; limits are refused."""

from __future__ import annotations

import re
import sys
from functools import cache

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_student.potentials.base import Evaluation, Refusal
from ase_student.potentials.registry import load_teacher

#: The package that each teacher needs.
PACKAGES = {"sevennet": "sevenn", "sevennet-l3i5": "sevenn", "chgnet": "chgnet"}
#: Central differences of float32 energies: steps in Å and in strain, errors in eV/Å and eV/Å³.
STEP, STRAIN = 0.01, 0.002
FORCE_TOLERANCE = 1e-2
STRESS_TOLERANCE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def loaded(name):
    return load_teacher(name)


@pytest.fixture(params=PACKAGES)
def teacher(request):
    pytest.importorskip(PACKAGES[request.param])
    return loaded(request.param)


def salt():
    """Return a crystal without symmetry whose stress differs along all axes."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.08, seed=1)
    strain = np.eye(3) + np.random.default_rng(0).normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return atoms


def label_of(teacher, atoms):
    (label,) = teacher.evaluate([atoms])
    assert isinstance(label, Evaluation), label
    return label


def test_forces_and_stress_are_derivatives_of_the_energy(teacher):
    atoms = salt()
    label = label_of(teacher, atoms)
    assert label.energies is not None
    assert label.energies.sum() == pytest.approx(label.energy, abs=1e-4)
    for i, axis in ((0, 0), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[i, axis] += sign * STEP
            energies.append(label_of(teacher, moved).energy)
        force = -(energies[0] - energies[1]) / (2 * STEP)
        assert label.forces[i, axis] == pytest.approx(force, abs=FORCE_TOLERANCE)
    for voigt, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * STRAIN / 2
            strain[b, a] += sign * STRAIN / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(label_of(teacher, strained).energy)
        stress = (energies[0] - energies[1]) / (2 * STRAIN) / atoms.get_volume()
        assert label.stress is not None
        assert label.stress[voigt] == pytest.approx(stress, abs=STRESS_TOLERANCE)
    assert np.abs(label.stress).min() > STRESS_TOLERANCE


def test_labels_do_not_depend_on_earlier_structures(teacher):
    atoms = salt()
    first = label_of(teacher, atoms)
    teacher.evaluate([bulk("Si"), Atoms("Lr", cell=[3, 3, 3], pbc=True), molecule("H2O")])
    second = label_of(teacher, atoms)
    assert second.energy == first.energy
    np.testing.assert_array_equal(second.forces, first.forces)


def test_unknown_elements_are_refused(teacher):
    atoms = bulk("Po", "sc", a=3.3)
    assert teacher.evaluate([atoms]) == [Refusal("has Po, which the teacher does not know")]
    assert teacher.elements >= {1, 6, 8, 14, 26, 29}


def test_molecules_are_refused_by_teachers_of_crystals(teacher):
    (result,) = teacher.evaluate([molecule("CH3OH")])
    if teacher.name == "chgnet":
        assert isinstance(result, Refusal)
        assert "periodic along three axes" in result.reason
    else:
        assert isinstance(result, Evaluation)
        assert result.stress is None


@pytest.mark.parametrize("name", PACKAGES)
def test_missing_extras_say_how_to_install_them(monkeypatch, name):
    package = PACKAGES[name]
    for module in list(sys.modules):
        if module.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"sevenn": "sevennet"}.get(package, package)
    with pytest.raises(ImportError, match=re.escape(f'pip install "ase-student[{extra}]"')):
        load_teacher(name)
