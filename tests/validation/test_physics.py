import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from numpy.testing import assert_allclose, assert_array_equal

from ase_student.checkpoint import student_folder
from ase_student.data.readers.opening import open_frames
from ase_student.engine.library import why_missing
from ase_student.potentials.base import Evaluation, Refusal
from ase_student.testing import structure
from ase_student.validation.models import ModelSpec, describe
from ase_student.validation.physics import agreement, dynamics, runner, torsions
from ase_student.validation.physics.agreement import check_backends
from ase_student.validation.physics.checks import Check, RefusedError, Subject, ask, judged
from ase_student.validation.physics.cutoff import check_cutoff
from ase_student.validation.physics.derivatives import check_derivatives
from ase_student.validation.physics.dimers import check_dimers
from ase_student.validation.physics.dynamics import check_energy_conservation, check_thermostat
from ase_student.validation.physics.relaxation import relaxed
from ase_student.validation.physics.runner import Lengths, molecules_of, run_checks, subject_of
from ase_student.validation.physics.symmetry import check_symmetries
from ase_student.validation.physics.torsions import check_torsions, rotatable_bond, scan
from ase_student.validation.physics.vibrations import check_vibrations, frequencies
from ase_student.validation.physics.water import check_water


class Pairs:
    """A pair potential with the given functions of distance for its energy and its force.

    The function `spoil` changes each result, to break the potential.
    """

    name = "pairs"

    def __init__(self, energy, force, spoil=None):
        self.energy, self.force, self.spoil = energy, force, spoil

    def evaluate(self, structures):
        return [self.evaluate_one(atoms) for atoms in structures]

    def evaluate_one(self, atoms):
        vectors = atoms.positions[:, None] - atoms.positions
        distances = np.linalg.norm(vectors, axis=2)
        i, j = np.triu_indices(len(atoms), 1)
        energy = float(self.energy(distances[i, j]).sum())
        np.fill_diagonal(distances, 1.0)
        sizes = self.force(distances) / distances
        np.fill_diagonal(sizes, 0.0)
        evaluation = Evaluation(energy, (sizes[:, :, None] * vectors).sum(axis=1))
        return evaluation if self.spoil is None else self.spoil(atoms, evaluation)


DEPTH, RATE, LENGTH = 2.0, 1.5, 1.2


def morse(r):
    # Smoothly zero at 5 Å.
    inside = np.maximum(1.0 - (r / 5.0) ** 2, 0.0) ** 3
    return DEPTH * ((1.0 - np.exp(-RATE * (r - LENGTH))) ** 2 - 1.0) * inside


def morse_force(r):
    step = 1e-5
    return -(morse(r + step) - morse(r - step)) / (2.0 * step)


def sound(spoil=None):
    return Pairs(morse, morse_force, spoil)


def subject(potential, precise=True):
    molecules = {
        "triangle": Atoms("OHH", [[0, 0, 0], [1.2, 0, 0], [0.6, 1.0, 0]]),
        "pair": Atoms("OH", [[0, 0, 0], [1.3, 0.1, 0]]),
    }
    return Subject(potential, potential, precise, 5.0, (1, 8), molecules, molecules)


def outcome(checks, name):
    (selected,) = [check for check in checks if name in check.name]
    return selected


@pytest.mark.parametrize("check", [check_symmetries, check_cutoff, check_derivatives, check_dimers])
def test_a_sound_potential_passes(check):
    for result in check(subject(sound())):
        assert result.passed in (True, None), result


def tilted(atoms, evaluation):
    energy = evaluation.energy + 1e-6 * float(np.ptp(atoms.positions[:, 0]))
    return replace(evaluation, energy=energy)


def anchored(atoms, evaluation):
    return replace(evaluation, energy=evaluation.energy + 1e-6 * float(atoms.positions.sum()))


def ordered(atoms, evaluation):
    return replace(evaluation, energy=evaluation.energy + 1e-6 * float(atoms.numbers[0]))


def stepped(atoms, evaluation):
    near = np.linalg.norm(atoms.positions[0] - atoms.positions[-1]) < 5.0
    return replace(evaluation, energy=evaluation.energy + 1e-6 * near)


def kinked(atoms, evaluation):
    near = np.linalg.norm(atoms.positions[0] - atoms.positions[-1]) < 5.0
    return replace(evaluation, forces=evaluation.forces + 1e-4 * near)


def weakened(atoms, evaluation):
    return replace(evaluation, forces=evaluation.forces * (1.0 - 1e-4))


@pytest.mark.parametrize(
    ("check", "spoil", "name"),
    [
        (check_symmetries, tilted, "rotation"),
        (check_symmetries, anchored, "translation"),
        (check_symmetries, ordered, "permutation"),
        (check_cutoff, stepped, "step of the energy"),
        (check_cutoff, kinked, "step of the forces"),
        (check_derivatives, weakened, "forces against"),
    ],
)
def test_a_broken_potential_fails(check, spoil, name):
    result = outcome(check(subject(sound(spoil))), name)
    assert result.passed is False
    assert result.value > result.limit
    assert result.detail.startswith("largest for")


def test_a_wrong_stress_fails(calculators):
    pytest.importorskip("torch")
    intact = runner.as_potential(calculators("torch", "float64"))

    class Doubled:
        name = "doubled"

        def evaluate(self, structures):
            return [
                replace(
                    evaluation,
                    stress=None if evaluation.stress is None else 1.001 * evaluation.stress,
                )
                for evaluation in intact.evaluate(structures)
            ]

    crystals = {name: structure(name) for name in ("triclinic", "small_triclinic")}
    for potential, passed in ((intact, True), (Doubled(), False)):
        test_subject = replace(subject(sound()), precise=potential, structures=crystals)
        assert outcome(check_derivatives(test_subject), "stress").passed is passed


def test_holes_are_found_and_wells_are_not():
    def holed(r):
        return morse(r) - 3.0 * np.exp(-(((r - 0.6) / 0.05) ** 2))

    result = check_dimers(subject(Pairs(holed, morse_force)))[0]
    assert result.passed is False
    assert "H-O at 0.6 Å" in result.detail
    assert result.value > 0.5
    assert set(result.curves["energies"]) == {"H-H", "H-O", "O-O"}
    assert len(result.curves["distances"]) == len(result.curves["energies"]["H-O"])
    assert result.curves["distances"][-1] == 5.5


def test_energy_conservation():
    conserved = check_energy_conservation(subject(sound()), 0.4)
    assert [check.passed for check in conserved] == [True, True]
    assert_allclose(conserved[1].value, 4.0, atol=0.5)
    assert set(conserved[0].curves["energies"]) == {"triangle", "pair"}
    # Forces that are not the gradient.
    swirl = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])

    def pushed(atoms, evaluation):
        center = atoms.positions - atoms.positions.mean(axis=0)
        return replace(evaluation, forces=evaluation.forces + 0.5 * center @ swirl)

    drifting = check_energy_conservation(subject(sound(pushed)), 0.4)
    assert drifting[0].passed is False


def test_uncertainty_of_a_slope_is_its_scatter():
    rng = np.random.default_rng(0)
    times = np.arange(2000) * 5e-4
    slopes, uncertainties = [], []
    for _ in range(50):
        # A new value every 10 fs, as the check assumes.
        noise = np.repeat(rng.normal(size=100), 20)
        slopes.append(np.polyfit(times, noise, 1)[0])
        uncertainties.append(dynamics.slope_uncertainty(times, noise))
    assert_allclose(np.mean(uncertainties), np.std(slopes), rtol=0.3)


def test_thermostat():
    result = check_thermostat(subject(sound()), 0.05)[0]
    assert result.passed is True
    assert result.detail == "4 of 4 runs of 0.05 ps stable"

    def nothing(atoms, evaluation):
        return replace(evaluation, forces=np.full_like(evaluation.forces, np.nan))

    result = check_thermostat(subject(sound(nothing)), 0.05)[0]
    assert result.passed is False
    assert "not finite" in result.detail


def test_checks_are_skipped_without_molecules():
    no_molecules = replace(subject(sound()), molecules={})
    assert check_energy_conservation(no_molecules, 0.1)[0].passed is None
    assert check_thermostat(no_molecules, 0.1)[0].passed is None
    assert check_vibrations(no_molecules, sound())[0].passed is None
    assert check_torsions(no_molecules, sound())[0].passed is None
    assert check_water(replace(no_molecules, elements=(6,)), 0.1)[0].passed is None


# --- against the teacher -----------------------------------------------------------------------


def test_frequency_of_two_atoms():
    atoms = relaxed(sound(), [Atoms("OH", [[0, 0, 0], [1.4, 0, 0]])], fmax=1e-4)[0]
    distance = atoms.get_distance(0, 1)
    step = 1e-3
    around = morse_force(np.array([distance - step, distance + step]))
    curvature = (around[0] - around[1]) / (2.0 * step)
    reduced = 15.999 * 1.008 / (15.999 + 1.008)
    expected = np.sqrt(curvature / reduced) * units._hbar * 1e10 / np.sqrt(units._e * units._amu)
    wavenumbers = frequencies(sound(), atoms)
    assert_allclose(wavenumbers[-1], expected / units.invcm, rtol=2e-3)
    assert_allclose(wavenumbers[:-1], 0.0, atol=30.0)


def test_vibrations_and_torsions_against_itself_and_another():
    test_subject = subject(sound())
    same_check = check_vibrations(test_subject, sound())[0]
    assert same_check.value < 0.5
    stiffer = Pairs(lambda r: 1.21 * morse(r), lambda r: 1.21 * morse_force(r))
    stiffer_check = check_vibrations(test_subject, stiffer)[0]
    teacher = stiffer_check.curves["of"]["triangle"]["teacher"]
    student = stiffer_check.curves["of"]["triangle"]["student"]
    assert_allclose(np.array(teacher)[-3:], 1.1 * np.array(student)[-3:], rtol=1e-2)


def test_rotatable_bonds():
    # In aspirin a bond of the ester or of the acid group is rotatable, a bond of the ring is not.
    aspirin = structure("aspirin")
    i, j, side = rotatable_bond(aspirin)
    assert side[j]
    assert not side[i]
    assert 2 <= side.sum() <= 19
    frames = scan(aspirin, (i, j, side))
    assert_allclose(frames[0].positions, aspirin.positions, atol=1e-9)
    for frame in frames:
        assert_array_equal(frame.positions[~side], aspirin.positions[~side])
        assert_allclose(frame.get_distance(i, j), aspirin.get_distance(i, j))
        inner = np.flatnonzero(side)
        assert_allclose(
            frame[inner].get_all_distances(), aspirin[inner].get_all_distances(), atol=1e-9
        )
    assert np.linalg.norm(frames[12].positions - aspirin.positions) > 1.0
    assert rotatable_bond(structure("water_dimer")) is None


def test_torsions_of_a_student_against_another(calculators):
    student = runner.as_potential(calculators("onnx"))
    test_subject = replace(
        subject(sound()), precise=student, molecules={"aspirin": structure("aspirin")}
    )
    assert check_torsions(test_subject, student)[0].value < 1e-3

    class Shifted:
        name = "shifted"

        def evaluate(self, structures):
            evaluations = student.evaluate(structures)
            return [
                replace(evaluation, energy=evaluation.energy + 0.02 * (-1) ** index)
                for index, evaluation in enumerate(evaluations)
            ]

    result = check_torsions(test_subject, Shifted())[0]
    assert_allclose(result.value, 20.0, rtol=0.2)
    assert len(result.curves["angles"]) == torsions.N_ANGLES


def test_radial_distributions_of_water(calculators):
    test_subject = replace(subject(sound()), potential=runner.as_potential(calculators("onnx")))
    result = check_water(test_subject, 0.03)[0]
    assert result.passed is None
    # So early in the run the molecules are still near the points of a grid.
    assert 2.4 < result.value < 4.7
    assert set(result.curves["g"]) == {"O-O", "O-H", "H-H"}
    # The highest peak is the hydrogen of the same molecule.
    distances, g = np.array(result.curves["distances"]), np.array(result.curves["g"]["O-H"])
    assert 0.9 < distances[g.argmax()] < 1.05


# --- all together ------------------------------------------------------------------------------


def test_the_largest_value_decides_whether_a_check_passes():
    assert judged("n", {"a": 1.0, "b": 3.0}, 2.0, unit="eV") == Check(
        "n", False, 3.0, 2.0, "eV", "largest for b"
    )
    assert judged("n", {"a": 1.0, "b": float("nan")}, 2.0, unit="eV").passed is False
    assert judged("n", {}, 2.0, unit="eV").passed is None


def test_refusals_are_failures():
    class Silent:
        name = "silent"

        def evaluate(self, structures):
            return [Refusal("not today") for _ in structures]

    with pytest.raises(RefusedError, match="not today"):
        ask(Silent(), [structure("atom")])
    spec = ModelSpec("tiny")
    checks = run_checks(spec, replace(subject(Silent()), is_precise=False), Lengths(0.1, 0.1))
    failed = {check.name for check in checks if check.passed is False}
    assert {"symmetries", "cutoff", "derivatives", "dimers", "NVE"} <= failed
    assert all("not today" in check.detail for check in checks if check.passed is False)


@pytest.fixture(scope="module")
def molecules():
    return {"aspirin": structure("aspirin")}


def test_the_bundled_student_passes_all_checks(molecules):
    pytest.importorskip("torch")
    spec = ModelSpec("tiny", threads=1)
    test_subject = subject_of(spec, molecules, (1, 6, 8))
    assert test_subject.is_precise
    assert test_subject.elements == (1, 6, 8)
    assert "aspirin" in test_subject.structures
    checks = run_checks(spec, test_subject, Lengths(0.0, 0.0))
    assert [check.name for check in checks if check.passed is False] == []
    description = describe(spec, spec.open())
    assert description["n_parameters"] == 77047
    assert description["backend"] == ("onnx" if why_missing() else "native")


def test_an_exported_file_passes_with_wider_limits(molecules, tmp_path):
    shutil.copy(student_folder("tiny") / "tiny.onnx", tmp_path)
    spec = ModelSpec(str(tmp_path / "tiny.onnx"), threads=1)
    test_subject = subject_of(spec, molecules, (1, 8))
    assert not test_subject.is_precise
    checks = run_checks(spec, test_subject, Lengths(0.0, 0.0))
    assert [check.name for check in checks if check.passed is False] == []
    assert outcome(checks, "forces against").limit > 1e-3
    assert outcome(checks, "backends").passed is None


@pytest.fixture(scope="module")
def legacy_checkpoint(tmp_path_factory):
    """A first-generation checkpoint with random weights."""
    torch = pytest.importorskip("torch")
    from ase_student.legacy import LegacyArchitecture

    rng = np.random.default_rng(0)
    state = {}
    for name, shape in LegacyArchitecture(32, 2, 10, 100).shapes.items():
        array = rng.normal(scale=0.1 if len(shape) == 1 else shape[1] ** -0.5, size=shape)
        state[name] = torch.as_tensor(array.astype(np.float32))
    state["embedding.weight"] *= 6.0
    state["rbf.centers"] = torch.linspace(0.0, 5.0, 10)
    state["rbf.widths"] = torch.full((10,), 0.5)
    path = tmp_path_factory.mktemp("legacy") / "old.pt"
    torch.save({"model_state_dict": state}, path)
    return path


def test_first_generation_checkpoints_fail_rotation_and_cutoff(
    molecules, legacy_checkpoint, monkeypatch
):
    monkeypatch.setattr(agreement, "BACKENDS", ("torch",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = ModelSpec(str(legacy_checkpoint), backend="torch")
        test_subject = subject_of(spec, molecules, (1, 6, 8))
        checks = run_checks(spec, test_subject, Lengths(0.0, 0.0))
    passed = {check.name: check.passed for check in checks}
    assert passed["rotation and reflection"] is False
    assert passed["step of the energy at the cutoff"] is False
    assert passed["translation"] is True
    assert passed["permutation"] is True
    assert passed["forces against finite differences"] is True
    assert outcome(checks, "rotation").value > 1e-3


def test_backends_that_differ_fail(calculators, molecules):
    pytest.importorskip("torch")
    spec = ModelSpec("tiny", threads=1)
    test_subject = subject_of(spec, molecules, (1, 6, 8))
    shifted = Pairs(lambda r: 0.0 * r, lambda r: 0.0 * r)
    shifted.evaluate = lambda structures: [
        replace(evaluation, energy=evaluation.energy + 0.1)
        for evaluation in test_subject.precise.evaluate(structures)
    ]
    checks = check_backends(replace(test_subject, precise=shifted), spec)
    passed = {check.name: check.passed for check in checks}
    assert passed == {
        "backends against float64, energy": False,
        "backends against float64, forces": True,
        "backends against each other, energy": True,
        "backends against each other, forces": True,
    }


def test_molecules_are_drawn_from_the_file(tmp_path):
    text = ""
    for index, (name, source) in enumerate(
        [("aspirin", "md"), ("water_box", "md"), ("atom", "md"), ("eight_elements", "displaced")]
        + [("water_dimer", "md")] * 4
    ):
        atoms = structure(name)
        atoms.info = {"energy": float(index), "source": source}
        atoms.write(tmp_path / "one.xyz", format="extxyz")
        text += (tmp_path / "one.xyz").read_text()
    (tmp_path / "data.xyz").write_text(text)
    drawn = molecules_of(open_frames(tmp_path / "data.xyz"), range(8), 0)
    assert len(drawn) == 4
    assert all(len(atoms) in (6, 21) for atoms in drawn.values())
    assert molecules_of(open_frames(tmp_path / "data.xyz"), [1, 2], 0) == {}
