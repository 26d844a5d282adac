"""Teachers: batches change nothing, and missing packages, options and elements are reported."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.data.s22 import create_s22_system
from ase.optimize import BFGS

from ase_student.potentials import calculator, registry
from ase_student.potentials.base import Evaluation, Refusal

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


@pytest.mark.parametrize("has_free_energy", [True, False])
def test_the_energy_is_the_free_energy_where_there_is_one(has_free_energy):
    class Smeared(Calculator):
        implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

        def calculate(self, *arguments):
            super().calculate(*arguments)
            self.results = {"energy": -1.0, "forces": np.zeros((len(self.atoms), 3))}
            if has_free_energy:
                self.results["free_energy"] = -1.5

    (label,) = calculator.CalculatorTeacher("smeared", Smeared, {}).evaluate([molecule("H2O")])
    assert label.energy == (-1.5 if has_free_energy else -1.0)


def test_a_teacher_with_changed_code_has_other_settings(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    all_settings = []
    for epsilon in (1.0, 2.5):
        text = "from ase.calculators.morse import MorsePotential\n\n\ndef make():\n"
        text += f"    return MorsePotential(epsilon={epsilon})\n"
        (tmp_path / "my_teacher.py").write_text(text, encoding="utf-8")
        all_settings.append(registry.load_teacher("my_teacher:make").settings)
        assert registry.load_teacher("my_teacher:make").settings == all_settings[-1]
        monkeypatch.delitem(sys.modules, "my_teacher")
    assert all_settings[0] != all_settings[1]
    assert all_settings[0]["calculator"] == "my_teacher:make"


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
def test_so3lr_gives_the_same_labels_in_batches():
    pytest.importorskip("so3krates_torch")
    import torch

    from ase_student.potentials import so3lr

    dtype_before = torch.get_default_dtype()
    structures = [molecule(name) for name in ("CH3COOH", "H2O", "C6H6")]
    teacher = registry.load_teacher("so3lr")
    exact = so3lr.So3lrTeacher(dtype="float64").evaluate(structures)
    for atoms, batched, reference in zip(
        structures, teacher.evaluate(structures), exact, strict=True
    ):
        (single,) = teacher.evaluate([atoms])
        assert isinstance(batched, Evaluation)
        assert isinstance(single, Evaluation)
        assert isinstance(reference, Evaluation)
        # Computed in float32, given in float64.
        assert batched.forces.dtype == np.float64
        np.testing.assert_array_equal(batched.forces, batched.forces.astype(np.float32))
        assert batched.stress is None
        assert batched.energy == pytest.approx(single.energy, abs=BATCH_TOLERANCE)
        assert batched.energies is not None
        assert batched.energies.dtype == np.float64
        assert batched.energies.sum() == pytest.approx(batched.energy, abs=1e-9)
        np.testing.assert_allclose(batched.energies, single.energies, rtol=0, atol=BATCH_TOLERANCE)
        np.testing.assert_allclose(batched.forces, single.forces, rtol=0, atol=BATCH_TOLERANCE)
        assert batched.energy == pytest.approx(reference.energy, abs=FLOAT32_ENERGY_TOLERANCE)
        np.testing.assert_allclose(
            batched.forces, reference.forces, rtol=0, atol=FLOAT32_FORCE_TOLERANCE
        )
    assert torch.get_default_dtype() == dtype_before

    # The package's own calculator, whose energies include the constant.
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    limited = so3lr.So3lrTeacher(long_range=12, dtype="float64").evaluate(structures)
    atoms = structures[0]
    for long_range, label in ((None, exact[0]), (12.0, limited[0])):
        with so3lr.default_dtype(torch.float64):
            atoms.calc = SO3LRCalculator(device="cpu", default_dtype="float64")
            # None for the calculator would keep the model's own cutoff.
            atoms.calc.models[0].r_max_lr = long_range
            atoms.calc.r_max_lr = so3lr.ALL_PAIRS
            assert isinstance(label, Evaluation)
            assert label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(label.forces, atoms.get_forces(), rtol=0, atol=1e-9)
            charges = atoms.calc.results["partial_charges"]
            np.testing.assert_allclose(label.charges, charges, rtol=0, atol=1e-9)
            ratios = atoms.calc.results["hirshfeld_ratios"]
            np.testing.assert_allclose(label.hirshfeld_ratios, ratios, rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_so3lr_has_the_long_range_of_its_authors():
    """A long-range cutoff would change water by 2 degrees and its dimer by 1.6 kcal/mol."""
    pytest.importorskip("so3krates_torch")
    teacher = registry.load_teacher("so3lr")
    water = molecule("H2O")
    water.calc = _TeacherCalculator(teacher)
    BFGS(water, logfile=None).run(fmax=0.002)
    # Experiment: 0.957 Å and 104.5°.
    assert water.get_distance(0, 1) == pytest.approx(0.9577, abs=5e-4)
    assert water.get_angle(1, 0, 2) == pytest.approx(104.81, abs=0.05)
    dimer = create_s22_system("Water_dimer")
    dimer_label, first_label, second_label = teacher.evaluate([dimer, dimer[:3], dimer[3:]])
    binding = (
        (dimer_label.energy - first_label.energy - second_label.energy) * units.mol / units.kcal
    )
    # CCSD(T) at the limit of large bases: -5.02 kcal/mol.
    assert binding == pytest.approx(-5.56, abs=0.01)


class _TeacherCalculator(Calculator):
    """A teacher as a calculator."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher

    def calculate(self, atoms=None, properties=(), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        (label,) = self.teacher.evaluate([atoms])
        self.results = {"energy": label.energy, "free_energy": label.energy, "forces": label.forces}


def _water_box():
    """Return eight waters in a small triclinic box."""
    generator = np.random.default_rng(0)
    box = Atoms(cell=[[6.2, 0.3, 0.0], [0.0, 6.3, 0.2], [0.1, 0.0, 6.4]], pbc=True)
    for corner in np.ndindex(2, 2, 2):
        water = molecule("H2O")
        water.rotate(generator.uniform(0, 360), generator.normal(size=3))
        water.positions += 3.1 * np.array(corner)
        box += water
    return box


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_forces_and_stress_of_so3lr_in_crystals_are_derivatives():
    pytest.importorskip("so3krates_torch")
    teacher = registry.load_teacher("so3lr:dtype=float64")
    box = _water_box()
    (label,) = teacher.evaluate([box])
    box.calc = _TeacherCalculator(teacher)
    forces = calculate_numerical_forces(box, eps=1e-4, iatoms=[0, 5])
    np.testing.assert_allclose(label.forces[[0, 5]], forces, rtol=0, atol=1e-6)
    stress = calculate_numerical_stress(box, eps=1e-4)
    np.testing.assert_allclose(label.stress, stress, rtol=0, atol=1e-7)
    # Molecules and crystals together, in the given order.
    mixed = teacher.evaluate([molecule("CH4"), box, molecule("CH4")])
    assert mixed[1].energy == pytest.approx(label.energy, abs=1e-9)
    assert mixed[0].energy == mixed[2].energy
    (doubled,) = teacher.evaluate([box.repeat((2, 1, 1))])
    assert doubled.energy == pytest.approx(2.0 * label.energy, abs=1e-6)


def test_ewald_sums_give_the_madelung_energy():
    """The Madelung energy of rock salt, whose neighbors are beyond the range of the damping."""
    torch = pytest.importorskip("torch")
    from ase_student.potentials.so3lr import COULOMB_CONSTANT, damped_ewald_energies

    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    charges = torch.tensor(np.where(crystal.numbers == 11, 1.0, -1.0))
    energies = damped_ewald_energies(
        charges, torch.tensor(crystal.positions), torch.tensor(crystal.cell.array), 0.5
    )
    # 1.7475645946 is the Madelung constant for the distance of neighbors, 2.8 Å.
    expected = -0.5 * COULOMB_CONSTANT * 1.7475645946 / 2.8
    np.testing.assert_allclose(energies.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_slabs_need_a_cutoff_of_so3lr():
    pytest.importorskip("so3krates_torch")
    slab = molecule("H2O", cell=[8, 8, 8], pbc=(True, True, False))
    (refusal,) = registry.load_teacher("so3lr").evaluate([slab])
    assert isinstance(refusal, Refusal)
    assert "so3lr:long_range=12" in refusal.reason
    (label,) = registry.load_teacher("so3lr:long_range=12").evaluate([slab])
    assert isinstance(label, Evaluation)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("so3lr:long_range=4", "long_range must be above the network's cutoff of 4.5 Å; given 4."),
        ("so3lr:long_range=far", "long_range must be a length in Å; given 'far'"),
        ("so3lr:dtype=float16", "dtype must be 'float32' or 'float64'; given 'float16'"),
        ("so3lr:range=12", "unexpected keyword argument 'range'"),
        ("so3lr:12", "options are written as key=value,key=value; given '12'"),
    ],
)
def test_wrong_options_of_teachers_are_refused(name, message):
    pytest.importorskip("so3krates_torch")
    with pytest.raises(ValueError, match=re.escape(message)):
        registry.load_teacher(name)


def test_options_are_part_of_a_teachers_settings(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from ase.calculators.morse import MorsePotential as Morse\n"
    (tmp_path / "my_morse.py").write_text(text, encoding="utf-8")
    plain = registry.load_teacher("my_morse:Morse")
    deep = registry.load_teacher("my_morse:Morse:epsilon=2.5")
    assert deep.settings == {**plain.settings, "epsilon": 2.5}
    (shallow,), (label,) = plain.evaluate([molecule("N2")]), deep.evaluate([molecule("N2")])
    assert label.energy == pytest.approx(2.5 * shallow.energy)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_elements_that_so3lr_was_not_trained_on_are_refused():
    pytest.importorskip("so3krates_torch")
    teacher = registry.load_teacher("so3lr")
    known, unknown = teacher.evaluate([molecule("H2O"), molecule("SiH4")])
    assert isinstance(known, Evaluation)
    assert unknown == Refusal("has Si, which the teacher does not know")


@pytest.mark.filterwarnings("ignore")
def test_xtb_results_do_not_depend_on_earlier_structures():
    pytest.importorskip("tblite")
    teacher = registry.load_teacher("gfn2-xtb")
    water = molecule("H2O")
    stretched = water.copy()
    stretched.positions *= 1.1
    (first,) = teacher.evaluate([water])
    _, _, last = teacher.evaluate([stretched, molecule("CH4"), water])
    _, repeated = teacher.evaluate([stretched, water])
    assert isinstance(first, Evaluation)
    assert first.energies is not None
    assert first.energies.sum() == pytest.approx(first.energy, abs=1e-9)
    assert first.energy == last.energy == repeated.energy
    np.testing.assert_array_equal(first.forces, repeated.forces)
