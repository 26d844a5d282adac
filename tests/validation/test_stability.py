import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from numpy.testing import assert_allclose

from ase_student.data.hdf5 import write_dataset
from ase_student.data.splits import split_of
from ase_student.data.structures import Structures
from ase_student.dynamics.bonds import Topology
from ase_student.dynamics.langevin import Walker
from ase_student.potentials.base import Evaluation, Refusal, as_potential
from ase_student.testing import structure
from ase_student.validation.stability import run
from ase_student.validation.stability.__main__ import main, molecules_of
from ase_student.validation.stability.run import Run, check_stability
from ase_student.validation.stability.water import water_box


class Springs:
    """Atoms tied to their first positions, with optional other forces; it counts evaluations."""

    name = "springs"

    def __init__(self, homes, forces=None, constant=20.0, stop_after=None):
        self.homes = {len(home): home.positions.copy() for home in homes}
        self.forces = forces
        self.constant = constant
        self.stop_after = stop_after
        self.n_calls = 0

    def evaluate(self, structures):
        if self.n_calls == self.stop_after:
            raise KeyboardInterrupt
        self.n_calls += 1
        return [self.evaluate_one(atoms) for atoms in structures]

    def evaluate_one(self, atoms):
        displacements = atoms.positions - self.homes[len(atoms)]
        forces = -self.constant * displacements
        if self.forces is not None:
            forces = forces + self.forces(self.n_calls, atoms)
        return Evaluation(0.5 * self.constant * float((displacements**2).sum()), forces)


def water():
    return structure("water_dimer")[:3]


# --- bonds -------------------------------------------------------------------------------------


def test_hydrogen_bonds_are_not_counted_as_bonds():
    dimer = structure("water_dimer")
    topology = Topology.of(dimer)
    assert sorted(zip(topology.first, topology.second, strict=True)) == [
        (0, 1), (0, 2), (1, 0), (2, 0), (3, 4), (3, 5), (4, 3), (5, 3),
    ]  # fmt: skip
    # The second molecule may move as long as it does not come close.
    dimer.positions[3:] += [6.0, 1.0, 0.0]
    assert topology.change(dimer) is None


def test_bonds_may_cross_the_boundary_of_the_cell():
    box = structure("outside")
    topology = Topology.of(box)
    assert len(topology.first) == 4 * 27
    box.positions += [100.0, 0.0, -55.0]
    assert topology.change(box) is None
    assert topology.stretches(box).max() < 1.1


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((0.47, 0.0, 0.0), None),
        ((0.51, 0.0, 0.0), "the bond O0-H1 broke (1.48 Å)"),
        ((-0.4, 0.0, 0.0), "the bond O0-H1 collapsed (0.57 Å)"),
        ((-0.691, 0.77, 0.0), "the bond H1-H2 formed (0.50 Å)"),
    ],
)
def test_broken_collapsed_and_new_bonds_are_named(shift, expected):
    atoms = water()
    topology = Topology.of(atoms)
    atoms.positions[1] += shift
    assert topology.change(atoms) == expected


# --- dynamics ----------------------------------------------------------------------------------


def test_walkers_have_the_temperature_of_the_thermostat():
    atoms = grid()
    springs = Springs([atoms])
    walker = Walker(atoms, 400.0, 1.0 * units.fs, friction=0.05 / units.fs, seed=[0, 0])
    energies, temperatures = [], []
    forces = springs.evaluate([walker.atoms])[0].forces
    for step in range(12000):
        walker.move(step, forces)
        evaluation = springs.evaluate([walker.atoms])[0]
        forces = evaluation.forces
        walker.arrive(forces)
        energies.append(evaluation.energy)
        temperatures.append(walker.temperature)
    # Each of the 24 springs holds kT / 2.
    assert_allclose(np.mean(energies[1000:]) / (12 * units.kB), 400.0, rtol=0.06)
    assert_allclose(np.mean(temperatures[1000:]), 400.0, rtol=0.06)


def test_molecules_are_stable_with_the_student(calculators):
    runs = [
        Run("ethanol-like", structure("aspirin"), 300.0, 0.2),
        Run("pair", structure("water_dimer"), 600.0, 0.1),
        Run("box", water_box(2), 300.0, 0.02),
    ]
    results = check_stability(calculators("onnx"), runs)
    assert [result.reason for result in results] == ["", "", ""]
    assert all(result.stable and result.failed_step is None for result in results)
    assert [result.n_atoms for result in results] == [21, 6, 24]
    assert all(1.0 < result.longest_bond < stability_limit() for result in results)


def stability_limit():
    from ase_student.dynamics import bonds as topology

    return topology.BROKEN


def test_runs_together_give_the_same_as_a_single_run():
    homes = [water(), structure("aspirin")]
    runs = [Run("a", homes[0], 300.0, 0.05), Run("b", homes[1], 300.0, 0.03)]
    together = check_stability(Springs(homes), runs)
    assert check_stability(Springs(homes), runs[:1])[0] == together[0]


def grid():
    return Atoms("C8", positions=4.0 * np.arange(24).reshape(8, 3))


def tear(n_calls, atoms):
    """Pull the second atom of water away after 30 calls."""
    forces = np.zeros((len(atoms), 3))
    if n_calls > 30 and len(atoms) == 3:
        forces[1] = [200.0, 0.0, 0.0]
    return forces


def kicks(size):
    def forces(n_calls, atoms):
        return size * np.random.default_rng(n_calls).normal(size=(len(atoms), 3)) * (n_calls > 300)

    return forces


def nothing(n_calls, atoms):
    return np.full((len(atoms), 3), np.nan if n_calls > 5 else 0.0)


@pytest.mark.parametrize(
    ("atoms", "forces", "reason", "steps"),
    [
        (water(), tear, "the bond O0-H1 broke", (30, 60)),
        (grid(), kicks(20.0), "the temperature jumped to", (300, 330)),
        (grid(), kicks(0.9), "the temperature rose to", (310, 700)),
        (water(), nothing, "energy or forces are not finite", (4, 6)),
    ],
)
def test_unstable_runs_are_reported_with_reason_and_step(monkeypatch, atoms, forces, reason, steps):
    monkeypatch.setattr(run, "SETTLING_FS", 100.0)
    monkeypatch.setattr(run, "WINDOW_FS", 100.0)
    springs = Springs([atoms], forces, constant=60.0)
    result = check_stability(springs, [Run("test", atoms, 300.0, 1.0)])[0]
    assert not result.stable
    assert result.reason.startswith(reason)
    assert steps[0] <= result.failed_step <= steps[1]
    assert_allclose(result.failed_ps, result.failed_step / 1000.0)


def test_a_failed_run_does_not_disturb_the_others():
    homes = [water(), structure("aspirin")]
    runs = [Run("a", homes[0], 300.0, 0.1), Run("b", homes[1], 300.0, 0.1)]
    failed, stable = check_stability(Springs(homes, tear, constant=60.0), runs)
    assert (failed.stable, stable.stable) == (False, True)


def test_a_refused_structure_fails_with_the_reason(calculators):
    atoms = Atoms("SiH4", [[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])
    runs = [Run("silane", atoms, 300.0, 0.01), Run("water", water(), 300.0, 0.01)]
    silane, water_result = check_stability(calculators("onnx"), runs)
    assert silane.failed_step == 0
    assert "this structure also has Si (atom 0)" in silane.reason
    assert water_result.stable


def test_an_interrupted_run_is_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "SAVE_STEPS", 50)
    homes = [water(), structure("aspirin")]
    runs = [Run("a", homes[0], 300.0, 0.3), Run("b", homes[1], 600.0, 0.2)]
    uninterrupted = check_stability(Springs(homes), runs)
    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        check_stability(Springs(homes, stop_after=130), runs, state=state)
    with pytest.raises(ValueError, match="is the state of other runs"):
        check_stability(Springs(homes), runs, seed=1, state=state)
    springs = Springs(homes)
    assert check_stability(springs, runs, state=state) == uninterrupted
    assert springs.n_calls == 201
    # The state is kept until its results are written.
    assert state.exists()
    state.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="does not hold the state of a stability run"):
        check_stability(springs, runs, state=state)


# --- potentials --------------------------------------------------------------------------------


class Pair(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if len(atoms) != 2:
            raise RuntimeError("two\natoms, please")
        self.results = {"energy": 1.5, "forces": np.ones((2, 3))}


def test_any_calculator_can_be_evaluated(calculators):
    structures = [structure("far_pair"), structure("atom")]
    pair, atom = as_potential(Pair()).evaluate(structures)
    assert pair.energy == 1.5
    assert pair.stress is None
    assert atom == Refusal("RuntimeError: two atoms, please")
    student = as_potential(calculators("onnx"))
    results = student.evaluate([*structures, Atoms("Si"), structure("crystal")])
    assert results[2].reason.startswith("student 'tiny' knows")
    assert results[3].stress.shape == (6,)
    assert as_potential(student) is student
    with pytest.raises(TypeError, match="given int"):
        as_potential(3)


# --- the table ---------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    """A data set with two conformers of each molecule; some molecules are held out."""
    names = ["C" * n for n in range(1, 40)]
    smiles = [name for name in names for _ in range(2)] + ["O.O"]
    smiles += ["CO" * n for n in range(1, 40)]
    sources = ["displaced", "md"] * len(names) + ["cluster"] + ["displaced"] * 39
    atoms = []
    for index in range(len(smiles)):
        copy = water()
        copy.positions += index
        atoms.append(copy)
    path = tmp_path / "data.h5"
    write_dataset(path, Structures.from_atoms(atoms, sources, smiles))
    return path


def test_molecules_are_held_out_and_from_dynamics(dataset):
    held_out = {"C" * n for n in range(1, 40) if split_of("C" * n) == "test"}
    held_out_molecules = molecules_of(dataset, 0, 1, largest=5, part="test", seed=0)
    assert set(held_out_molecules) == held_out
    for smiles, atoms in held_out_molecules.items():
        assert_allclose(atoms.positions[0], water().positions[0] + 2 * (len(smiles) - 1) + 1)
    two_molecules = molecules_of(dataset, 2, 1, largest=5, part="test", seed=0)
    assert len(two_molecules) == 2
    assert set(two_molecules) < held_out
    assert (
        molecules_of(dataset, 2, 1, largest=5, part="test", seed=1).keys() != two_molecules.keys()
    )
    with pytest.raises(ValueError, match=r"has 0 molecules of 20 to 60 atoms \(part 'test'\)"):
        molecules_of(dataset, 1, 20, largest=60, part="test", seed=0)


def test_the_command_writes_a_table(dataset, tmp_path, capsys):
    output = tmp_path / "stability.json"
    command = [str(dataset), "--smallest", "3", "--number", "1", "--picoseconds", "0.01"]
    assert main([*command, "--temperatures", "300", "--water", "0.001", "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 runs stable" in printed
    assert "64 periodic waters" in printed
    document = json.loads(output.read_text())
    assert document["n_stable"] == document["n_runs"] == 2
    assert document["student"] == "tiny"
    assert document["runs"][0]["stable"] is True
    assert [path.name for path in tmp_path.iterdir() if "state" in path.name] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.h5"], "no data set at"),
        ([], "nothing to run: give a file, or --water."),
        (["--water", "1", "--timestep", "2"], "at most 1 fs"),
        (["--water", "1", "--model", "tiney"], "no student named 'tiney'"),
        (["molecule.xyz"], "take all with --part all"),
        (["notes.txt", "--part", "all"], "ASE does not recognize its file format"),
        (["molecule.xyz", "--part", "all", "--number", "-1"], "--number is -1"),
        (["molecule.xyz", "--part", "all", "--seed", "-1"], "--seed is -1"),
        (["--water", "inf"], "the temperature must be positive and the length finite"),
        (["--water", "1", "-o", "."], "is a folder; give the name of a file"),
    ],
)
def test_mistakes_are_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    water().write("molecule.xyz")
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(["-o", "out.json", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out.json").exists()
