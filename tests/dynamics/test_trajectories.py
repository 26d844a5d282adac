"""Dynamics of many structures at once: each moves as it would alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

pytest.importorskip("rdkit")

from ase_student.backends import accelerators
from ase_student.calculator import StudentCalculator
from ase_student.checkpoint import student_folder
from ase_student.dynamics import trajectories
from ase_student.potentials import registry
from ase_student.potentials.base import Evaluation, Refusal, forces_of

#: eV/Å, float32 in other batches.
FORCE_TOLERANCE = 1e-4


class Springs:
    """Every atom is tied to the origin; hydrogen is refused."""

    name = "springs"

    def evaluate(self, structures):
        return [
            Refusal("has H") if 1 in atoms.numbers else Evaluation(0.0, -5.0 * atoms.positions)
            for atoms in structures
        ]


@pytest.mark.parametrize("name", ["tiny", "ase.calculators.emt:EMT"])
def test_forces_are_those_of_single_structures(name):
    structures = [molecule("CH3OH"), molecule("H2O"), molecule("C2H6")]
    all_forces = forces_of(registry.load_potential(name, threads=1), structures)
    calculator = StudentCalculator("tiny") if name == "tiny" else EMT()
    for atoms, forces in zip(structures, all_forces, strict=True):
        atoms.calc = calculator
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=FORCE_TOLERANCE)


def test_students_run_in_the_engine_where_possible(monkeypatch, engine):
    onnx = student_folder("tiny") / "tiny.onnx"
    for name, device, has_gpu, expected in [
        ("tiny", "auto", False, "native"),
        ("tiny", "cpu", True, "native"),
        (str(onnx), "auto", False, "onnx"),
    ]:
        monkeypatch.setattr(accelerators, "_torch_has_cuda", lambda has_gpu=has_gpu: has_gpu)
        student = registry.load_potential(name, device=device, threads=1)
        assert student.calculator.backend == expected


@pytest.mark.parametrize("name", ["tiny", "ase.calculators.emt:EMT"])
def test_a_structure_without_forces_does_not_disturb_the_others(name):
    unknown = Atoms("XeXe", [[0, 0, 0], [0, 0, 2.0]])
    structures = [molecule("CH3OH"), unknown, molecule("H2O"), unknown]
    all_forces = forces_of(registry.load_potential(name, threads=1), structures)
    assert [np.isfinite(forces).all() for forces in all_forces] == [True, False, True, False]
    assert [forces.shape for forces in all_forces] == [(6, 3), (2, 3), (3, 3), (2, 3)]


def test_a_trajectory_without_forces_ends_and_the_others_continue():
    structures = [Atoms("C2", [[0, 0, 0], [0, 0, 1.0]]), molecule("H2"), Atoms("N")]
    rng = np.random.default_rng(0)
    rounds = trajectories.trajectories(structures, Springs(), [300, 300, 300], n_steps=5, rng=rng)
    for moved in itertools.islice(rounds, 3):
        assert [np.isfinite(atoms.positions).all() for atoms in moved] == [True, False, True]
        assert [len(atoms) for atoms in moved] == [2, 2, 1]
    assert np.isfinite(structures[1].positions).all()


def test_each_structure_has_its_own_temperature():
    structures = [Atoms("C400", np.zeros((400, 3))), Atoms("N400", np.zeros((400, 3)))]
    rounds = trajectories.trajectories(
        structures, Springs(), [200, 800], n_steps=30, rng=np.random.default_rng(0)
    )
    squares = [
        [(atoms.positions**2).mean() for atoms in moved]
        for moved in itertools.islice(rounds, 10, 60)
    ]
    temperatures = 5.0 * np.mean(squares, axis=0) / units.kB
    np.testing.assert_allclose(temperatures, [200, 800], rtol=3e-2)


def test_cells_are_kept_and_given_structures_are_not_changed():
    salt = bulk("NaCl", "rocksalt", 5.64)
    unchanged = salt.copy()
    rounds = trajectories.trajectories(
        [salt], Springs(), [300], n_steps=2, rng=np.random.default_rng(0)
    )
    moved = next(rounds)[0]
    np.testing.assert_array_equal(moved.cell.array, salt.cell.array)
    assert moved.pbc.all()
    assert not np.allclose(moved.positions, salt.positions)
    assert salt == unchanged


def test_the_wall_keeps_a_cluster_together():
    class FreeParticles:
        name = "free particles"

        def evaluate(self, structures):
            return [Evaluation(0.0, np.zeros((len(atoms), 3))) for atoms in structures]

    gas = [Atoms("Ne8", np.random.default_rng(1).normal(size=(8, 3)))] * 2
    largest_distances = {}
    for confined in (True, False):
        rng = np.random.default_rng(0)
        rounds = trajectories.trajectories(
            gas, FreeParticles(), [300, 300], n_steps=3000, rng=rng, confined=confined
        )
        moved = next(rounds)
        largest_distances[confined] = max(
            np.linalg.norm(a.positions - a.positions.mean(0)) for a in moved
        )
    assert largest_distances[True] < 6 < 12 < largest_distances[False]


def test_relaxing_lowers_the_forces():
    rattled = molecule("CH3CH2OH")
    rattled.rattle(0.05, seed=0)
    tiny = registry.load_potential("tiny", threads=1)
    unknown = Atoms("Xe", [[0, 0, 0]])
    relaxed = trajectories.relaxed([rattled, unknown], tiny, 50)
    force_before, force_after = (
        np.abs(forces_of(tiny, [atoms])[0]).max() for atoms in (rattled, relaxed[0])
    )
    assert force_after < 0.3 * force_before
    assert np.isnan(relaxed[1].positions).all()


def test_an_empty_list_gives_no_trajectories():
    assert trajectories.relaxed([], Springs(), 3) == []
    assert (
        list(trajectories.trajectories([], Springs(), [], n_steps=3, rng=np.random.default_rng(0)))
        == []
    )


def test_the_identity_of_a_student_is_its_weights(tmp_path):
    from ase_student.checkpoint import resolve_model

    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(resolve_model("tiny").read_bytes())
    assert registry.identity(str(copy)) == registry.identity("tiny")
    copy.write_bytes(b"other")
    assert registry.identity(str(copy)) != registry.identity("tiny")
    assert registry.identity("ase.calculators.emt:EMT")["package"].startswith("ase ")
