"""Teachers: batches change nothing, and what they lack is told."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import Calculator

from ase_student.potentials import calculator, registry
from ase_student.potentials.base import Failure, Label

#: float32 results of one structure alone and among others: eV, eV/Å.
BATCH_TOLERANCE = 2e-5
#: float32 against float64 of SO3LR: eV, eV/Å.
FLOAT32_ENERGY_TOLERANCE = 1e-4
FLOAT32_FORCE_TOLERANCE = 2e-4


def test_a_calculator_without_forces_is_refused():
    class Energies(Calculator):
        implemented_properties = ["energy", "dipole"]  # noqa: RUF012

    message = "teacher 'mine' gives no forces, only energy, dipole; a student learns from"
    with pytest.raises(ValueError, match=message):
        calculator.CalculatorTeacher("mine", Energies, {})


@pytest.mark.parametrize("gives", [True, False])
def test_the_energy_is_the_one_that_forces_are_derivatives_of(gives):
    class Smeared(Calculator):
        implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

        def calculate(self, *arguments):
            super().calculate(*arguments)
            self.results = {"energy": -1.0, "forces": np.zeros((len(self.atoms), 3))}
            if gives:
                self.results["free_energy"] = -1.5

    (label,) = calculator.CalculatorTeacher("smeared", Smeared, {}).label([molecule("H2O")])
    assert label.energy == (-1.5 if gives else -1.0)


def test_code_that_changes_is_another_teacher(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for epsilon in (1.0, 2.5):
        text = "from ase.calculators.morse import MorsePotential\n\n\ndef make():\n"
        text += f"    return MorsePotential(epsilon={epsilon})\n"
        (tmp_path / "my_teacher.py").write_text(text, encoding="utf-8")
        found.append(registry.load_teacher("my_teacher:make").settings)
        assert registry.load_teacher("my_teacher:make").settings == found[-1]
        monkeypatch.delitem(sys.modules, "my_teacher")
    assert found[0] != found[1]
    assert found[0]["calculator"] == "my_teacher:make"


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("so3lr", "so3krates_torch", "distill"), ("gfn2-xtb", "tblite", "xtb")],
)
def test_missing_extras_say_how_to_install_them(monkeypatch, name, package, extra):
    for loaded in list(sys.modules):
        if loaded.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=re.escape(f'pip install "ase-student[{extra}]"')):
        registry.load_teacher(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_so3lr_labels_many_as_it_labels_one():
    pytest.importorskip("so3krates_torch")
    import torch

    from ase_student.potentials import so3lr

    before = torch.get_default_dtype()
    structures = [molecule(name) for name in ("CH3COOH", "H2O", "C6H6")]
    teacher = registry.load_teacher("so3lr")
    exact = so3lr.So3lrTeacher("float64").label(structures)
    for atoms, one, reference in zip(structures, teacher.label(structures), exact, strict=True):
        (alone,) = teacher.label([atoms])
        assert isinstance(one, Label)
        assert isinstance(alone, Label)
        assert isinstance(reference, Label)
        assert one.forces.dtype == np.float32
        assert one.stress is None
        assert one.energy == pytest.approx(alone.energy, abs=BATCH_TOLERANCE)
        assert one.energies is not None
        assert one.energies.dtype == np.float64
        assert one.energies.sum() == pytest.approx(one.energy, abs=1e-9)
        np.testing.assert_allclose(one.energies, alone.energies, rtol=0, atol=BATCH_TOLERANCE)
        np.testing.assert_allclose(one.forces, alone.forces, rtol=0, atol=BATCH_TOLERANCE)
        assert one.energy == pytest.approx(reference.energy, abs=FLOAT32_ENERGY_TOLERANCE)
        np.testing.assert_allclose(
            one.forces, reference.forces, rtol=0, atol=FLOAT32_FORCE_TOLERANCE
        )
    assert torch.get_default_dtype() == before

    # The package's own calculator, whose energies keep the constant inside.
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    atoms = structures[0]
    with so3lr.default_dtype(torch.float64):
        atoms.calc = SO3LRCalculator(device="cpu", default_dtype="float64")
        assert isinstance(exact[0], Label)
        assert exact[0].energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(exact[0].forces, atoms.get_forces(), rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_elements_that_so3lr_was_not_trained_on_are_refused():
    pytest.importorskip("so3krates_torch")
    teacher = registry.load_teacher("so3lr")
    known, unknown = teacher.label([molecule("H2O"), molecule("SiH4")])
    assert isinstance(known, Label)
    assert unknown == Failure("has Si, which the teacher does not know")


@pytest.mark.filterwarnings("ignore")
def test_xtb_gives_the_same_answer_whatever_came_before():
    pytest.importorskip("tblite")
    teacher = registry.load_teacher("gfn2-xtb")
    water = molecule("H2O")
    stretched = water.copy()
    stretched.positions *= 1.1
    (before,) = teacher.label([water])
    _, _, after = teacher.label([stretched, molecule("CH4"), water])
    _, again = teacher.label([stretched, water])
    assert isinstance(before, Label)
    assert before.energies is not None
    assert before.energies.sum() == pytest.approx(before.energy, abs=1e-9)
    assert before.energy == after.energy == again.energy
    np.testing.assert_array_equal(before.forces, again.forces)
