"""Experiments of chemistry: what they compute, store, compare and report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.data import s22

from ase_student import StudentCalculator
from ase_student.potentials.base import Evaluation, Refusal, as_potential
from ase_student.validation.__main__ import main
from ase_student.validation.chemistry import (
    conformers,
    crystals,
    interactions,
    references,
    section,
    torsions,
    verdicts,
    vibrations,
    water,
)
from ase_student.validation.chemistry.experiment import Experiment, Figure, mean_absolute
from ase_student.validation.chemistry.readme import BEGIN, END, write_readme
from ase_student.validation.chemistry.relaxation import (
    minimize,
    minimize_crystals,
    minimize_with_torsion,
)
from ase_student.validation.chemistry.run import (
    EXPERIMENTS,
    experiments_with_liquid,
    figures,
    measure,
)
from ase_student.validation.physics.checks import RefusedError

KNOWN = references.known_references(EXPERIMENTS)


class InversePairs:
    """Energy 1/r of all pairs, in eV, so that an interaction energy is known; no forces."""

    name = "pairs"

    def __init__(self) -> None:
        self.n_calls = 0

    def evaluate(self, structures: list[Atoms]) -> list[Evaluation | Refusal]:
        self.n_calls += 1
        return [
            Evaluation(_inverse(a.positions, a.positions) / 2, 0 * a.positions) for a in structures
        ]


class Refusing:
    name = "refusing"

    def evaluate(self, structures: list[Atoms]) -> list[Evaluation | Refusal]:
        return [Refusal("knows nothing") for _ in structures]


def _inverse(first: Any, second: Any) -> float:
    distances = np.linalg.norm(first[:, None] - second, axis=2)
    return float((1.0 / distances[distances > 1e-9]).sum())


@pytest.fixture(scope="module")
def student() -> Any:
    return as_potential(StudentCalculator("ultra-tiny", guard="off", threads=1))


@pytest.mark.parametrize("name", s22.s22)
def test_dimers_are_pulled_apart_to_a_closest_distance_without_rotation(name: str) -> None:
    first, second = interactions.dimer(name)
    for distance in interactions.BAR_DISTANCES:
        apart = interactions.pulled_apart(first, second, distance)
        assert apart is not None
        fixed, shifted = apart[: len(first)], apart[len(first) :]
        assert interactions.closest_distance(fixed, shifted) == pytest.approx(distance, abs=1e-5)
        np.testing.assert_array_equal(fixed.positions, first.positions)
        shift = shifted.positions - second.positions
        np.testing.assert_allclose(shift, shift[:1].repeat(len(shifted), axis=0), atol=1e-12)


def test_a_dimer_that_is_wider_than_asked_is_not_compressed() -> None:
    first, second = interactions.dimer("Benzene_dimer_parallel_displaced")
    assert interactions.closest_distance(first, second) > 2.5
    assert interactions.pulled_apart(first, second, 2.5) is None


def test_interaction_energies_are_dimers_minus_molecules() -> None:
    measured = interactions.measure(InversePairs())
    assert list(measured["s22"]) == s22.s22
    first, second = interactions.dimer("Water_dimer")
    expected = _inverse(first.positions, second.positions) / interactions.KCAL
    assert measured["s22"]["Water_dimer"] == pytest.approx(expected, abs=1e-4)
    wide = interactions.dimer("Water_dimer", "2.0")
    expected = _inverse(wide[0].positions, wide[1].positions) / interactions.KCAL
    assert measured["s22x5"]["Water_dimer"]["2.0"] == pytest.approx(expected, abs=1e-4)


def test_figures_of_dimers_are_mean_absolute_differences() -> None:
    teacher = interactions.measure(InversePairs())
    student = json.loads(json.dumps(teacher))
    student["s22"]["Water_dimer"] -= 2.2
    student["apart"]["Water_dimer"]["3.50"] += 1.1
    by_name_and_reference = {(f.name, f.against): f for f in interactions.compare(student, teacher)}
    at_minimum = by_name_and_reference[interactions.AT_MINIMUM, "teacher"]
    assert at_minimum.value == pytest.approx(2.2 / 22, abs=1e-4)
    assert at_minimum.detail == "largest for Water_dimer: -2.20 kcal/mol"
    apart = by_name_and_reference[interactions.PULLED_APART, "teacher"]
    assert apart.value == pytest.approx(1.1 / (22 * 5), abs=1e-4)
    assert apart.n == 22 * len(interactions.BAR_DISTANCES)


@pytest.mark.parametrize(
    ("profile", "places"),
    [
        ([5.0, 3.0, 1.0, 2.0, 3.0, 1.0, 0.0], [0, 4]),
        ([0.0, 1.0, 2.0, 1.0, 0.0], [2]),
        # A flat top is one barrier, and ripples are none.
        ([0.0, 2.0, 2.0, 0.0, 0.1, 0.0], [1]),
        # The same at both ends.
        ([0.8, 0.2, 0.0, 0.2, 0.8], [0, 4]),
        ([0.0, 0.0, 0.0], []),
    ],
)
def test_barriers_are_maxima_between_minima(profile: list[float], places: list[int]) -> None:
    assert torsions.maxima(profile) == places


def test_a_barrier_may_be_one_angle_away() -> None:
    assert torsions.barriers([0.5, 1.0, 3.0, 4.0, 2.0], [2]) == [3.5]
    teacher = {"profiles": {"x": [0.0, 1.0, 4.0, 1.0, 0.0]}}
    student = {"profiles": {"x": [0.0, 3.0, 2.0, 1.0, 0.0]}}
    height, relative, _ = torsions.compare(student, teacher)
    assert height.value == 1.0
    assert relative.value == -25.0


def test_scans_have_the_listed_angles() -> None:
    for scan in torsions.scans():
        assert len(scan.frames) == len(torsions.ANGLES)
        for angle, atoms in zip(torsions.ANGLES, scan.frames, strict=True):
            dihedral = atoms.get_dihedral(*scan.torsion)
            assert min(abs(dihedral - angle), 360.0 - abs(dihedral - angle)) < 0.1, scan.name


def test_a_torsion_is_held_while_the_rest_is_minimized(student: Any) -> None:
    scan = torsions.scans()[0]
    minimum = minimize_with_torsion(student, [scan.frames[6]], [scan.torsion])[0]
    assert minimum.converged
    angle = minimum.atoms.get_dihedral(*scan.torsion)
    assert angle == pytest.approx(torsions.ANGLES[6], abs=0.1)
    assert not minimum.atoms.constraints
    free = minimize(student, [minimum.atoms], fmax=0.005)[0]
    assert free.converged
    assert free.energy < minimum.energy - 0.01
    forces = student.evaluate([free.atoms])[0].forces
    assert np.linalg.norm(forces, axis=1).max() <= 0.005


def test_crystals_reach_the_minimum_of_their_energy() -> None:
    potential = as_potential(EMT())
    minimum = minimize_crystals(potential, [bulk("Cu", a=3.75, cubic=True)], fmax=1e-4)[0]
    lengths = np.linspace(3.5, 3.7, 81)
    energies = [
        e.energy for e in potential.evaluate([bulk("Cu", a=a, cubic=True) for a in lengths])
    ]
    fitted = np.polynomial.Polynomial.fit(lengths, energies, 6)
    roots = [r.real for r in fitted.deriv().roots() if abs(r.imag) < 1e-9 and 3.5 < r.real < 3.7]
    assert minimum.converged
    np.testing.assert_allclose(minimum.atoms.cell.lengths(), roots[0], atol=1e-3)


def test_a_failed_minimization_gives_its_reason_and_the_others_go_on() -> None:
    class OnlyCopper:
        name = "copper"

        def evaluate(self, structures: list[Atoms]) -> list[Any]:
            emt = as_potential(EMT())
            return [
                emt.evaluate([a])[0] if "Cu" in a.symbols else Refusal("no copper")
                for a in structures
            ]

    minima = minimize(OnlyCopper(), [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]]), molecule("N2")])
    assert [minimum.reason for minimum in minima] == ["", "no copper"]
    assert minimize(OnlyCopper(), [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.9]])], steps=1)[0].reason == (
        "not converged"
    )


def test_g2_molecules_are_neutral_closed_shells_of_known_elements() -> None:
    molecules = vibrations.molecules()
    assert {"H2O", "CH4", "C6H6", "CO2"} <= set(molecules)
    assert not {"OH", "CH3", "NO2", "O2", "LiH", "CH2_s1A1d", "H"} & set(molecules)
    assert len(vibrations.bond_lengths(molecules["H2O"], molecules["H2O"])) == 2


@pytest.mark.parametrize(
    ("name", "n_atoms", "n_bonds", "density"),
    [
        ("urea", 16, 14, 1.375),
        ("CO2", 12, 8, 1.64),
        ("benzene", 48, 48, 1.09),
        ("ice XI", 24, 16, 0.93),
    ],
)
def test_crystals_have_whole_molecules_and_the_right_density(
    name: str, n_atoms: int, n_bonds: int, density: float
) -> None:
    atoms = crystals.CRYSTALS[name]()
    assert len(atoms) == n_atoms
    assert len(crystals.Topology.of(atoms).first) == 2 * n_bonds
    assert water.density(atoms) == pytest.approx(density, abs=0.01)


def test_lost_crystals_are_counted_and_not_averaged() -> None:
    cells = {"CO2": {"lengths": [5.624 * 1.02] * 3, "volume": 5.624**3 * 1.02**3}}
    measured = {"cells": cells, "failed": {"urea": "bonds changed"}}
    lengths, volume, lost = crystals.compare(measured, None)
    assert lengths.value == pytest.approx(2.0, abs=1e-3)
    assert volume.value == pytest.approx(6.12, abs=0.01)
    assert (lost.value, lost.unit, lost.detail) == (1.0, "of 4", "urea: bonds changed")


def test_conformers_are_compared_by_relative_energy_and_rank() -> None:
    teacher = {"energies": {"a": [-1.0, 0.0, 1.0]}}
    value, rank, lowest = conformers.compare({"energies": {"a": [0.0, -1.0, 1.0]}}, teacher)
    assert value.value == pytest.approx(2.0 / 3.0, abs=1e-4)
    assert rank.value == pytest.approx(1.0 / 3.0, abs=1e-3)
    assert lowest.value == 0.0


def test_a_measurement_is_stored_and_not_repeated(tmp_path: Path) -> None:
    potential = InversePairs()
    first = measure(potential, {"sha": 1}, EXPERIMENTS[:1], folder=tmp_path)
    repeated = measure(potential, {"sha": 1}, EXPERIMENTS[:1], folder=tmp_path)
    assert first == repeated
    assert potential.n_calls == 1
    measure(potential, {"sha": 2}, EXPERIMENTS[:1], folder=tmp_path)
    assert potential.n_calls == 2
    newer = dataclasses.replace(EXPERIMENTS[0], version=EXPERIMENTS[0].version + 1)
    measure(potential, {"sha": 2}, [newer], folder=tmp_path)
    assert potential.n_calls == 3
    (file,) = tmp_path.iterdir()
    file.write_text("{", encoding="utf-8")
    assert measure(potential, {"sha": 2}, [newer], folder=tmp_path) == first
    assert potential.n_calls == 4


def test_a_refusal_is_reported_and_gives_no_figures() -> None:
    measured = measure(Refusing(), {}, EXPERIMENTS[:1])
    assert measured == {"interactions": {"refused": "knows nothing"}}
    assert figures(measured, KNOWN["so3lr"].measured) == []


def test_results_that_are_not_finite_are_a_refusal() -> None:
    experiment = dataclasses.replace(EXPERIMENTS[0], measure=lambda _: {"s22": {"a": np.nan}})
    measured = measure(InversePairs(), {}, [experiment])
    assert measured == {"interactions": {"refused": "its results are not finite"}}


def test_a_potential_without_stress_has_no_pressure() -> None:
    with pytest.raises(RefusedError, match="no stress"):
        water.measure_pressure(InversePairs())


def test_liquids_run_only_on_request() -> None:
    assert experiments_with_liquid(0.0) == EXPERIMENTS
    names = [experiment.name for experiment in experiments_with_liquid(20.0)]
    assert names[-2:] == ["pair-distribution-20ps", "density-20ps"]


def test_short_dynamics_of_water_gives_structure_and_density(student: Any) -> None:
    measured = water.measure_density(0.04)(student)
    assert 0.8 < measured["density"] < 1.2
    (figure,) = water.compare_density(measured, None)
    assert figure.value == pytest.approx(100 * (measured["density"] / water.DENSITY - 1), abs=0.01)
    failed = {"picoseconds": 1.0, "failed": "it evaporated"}
    assert water.compare_density(failed, None)[0].value is None


def test_references_are_of_the_teacher_with_its_authors_settings() -> None:
    teacher = KNOWN["so3lr"]
    # A cutoff of 1000 Å differs from none by up to 0.04 kcal/mol in these dimers.
    assert teacher.settings["cutoff_long_range"] in ("none", 1000.0)
    assert {"interactions", "torsions"} <= set(teacher.measured)
    dimers = teacher.measured["interactions"]["s22"]
    assert dimers["Water_dimer"] == pytest.approx(-5.57, abs=0.03)
    assert dimers["Ammonia_dimer"] == pytest.approx(-3.75, abs=0.03)
    assert dimers["Formamide_dimer"] == pytest.approx(-16.07, abs=0.04)
    for name, expected in (("so3lr", 1.64), ("gfn2-xtb", 0.78)):
        compared = interactions.compare(KNOWN[name].measured["interactions"], None)
        assert compared[0].against == "CCSD(T)"
        assert compared[0].value == pytest.approx(expected, abs=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_teacher_reproduces_its_stored_reference() -> None:
    pytest.importorskip("so3krates_torch")
    from ase_student.potentials.registry import load_teacher

    teacher = as_potential(load_teacher("so3lr"))
    pair = interactions.dimer("Water_dimer")
    (energy,) = interactions.interaction_energies(teacher, [pair[0] + pair[1]], [pair])
    stored = KNOWN["so3lr"].measured["interactions"]["s22"]["Water_dimer"]
    assert energy == pytest.approx(stored, abs=0.04)


def test_references_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "references.json"
    first = Experiment("one", "One", 1, lambda _: {}, lambda *_: [])
    second = dataclasses.replace(first, name="two")
    experiments = (first, second)
    references.write_references(
        path, "t", {"v": 1}, measured={"one": {"x": {"a": 1.5}}}, experiments=experiments
    )
    references.write_references(
        path, "t", {"v": 1}, measured={"two": {"y": [1, 2]}}, experiments=experiments
    )
    document = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.setattr(references, "_document", lambda: document)
    known = references.known_references(experiments)["t"]
    assert known.measured == {"one": {"x": {"a": 1.5}}, "two": {"y": [1, 2]}}
    newer = dataclasses.replace(first, version=2)
    assert set(references.known_references((newer, second))["t"].measured) == {"two"}
    # Other settings are another teacher: its values replace all of the old ones.
    with pytest.raises(ValueError, match="other settings.*measure two as well"):
        references.write_references(
            path, "t", {"v": 2}, measured={"one": {"x": {"a": 2.5}}}, experiments=experiments
        )
    assert json.loads(path.read_text(encoding="utf-8")) == document
    remeasured = {"one": {"x": {"a": 2.5}}, "two": {"y": [3]}}
    references.write_references(path, "t", {"v": 2}, measured=remeasured, experiments=experiments)
    entry = json.loads(path.read_text(encoding="utf-8"))["potentials"]["t"]
    assert entry["experiments"]["two"]["measured"] == {"y": [3]}


def _figure(name: str, value: float | None, against: str, detail: str = "") -> dict[str, Any]:
    return dataclasses.asdict(Figure(name, value, "", against, 1, detail))


@pytest.mark.parametrize(
    ("value", "grade"),
    [(-0.4, "good"), (0.5, "good"), (1.0, "usable with care"), (1.01, "not good enough")],
)
def test_grades_follow_the_limits(value: float, grade: str) -> None:
    graded = verdicts.verdicts([_figure(torsions.BARRIERS, value, "teacher")])
    (barriers,) = [verdict for verdict in graded if verdict["topic"] == "rotational barriers"]
    assert barriers["grade"] == grade
    other_grades = {
        verdict["grade"] for verdict in graded if verdict["topic"] != "rotational barriers"
    }
    assert other_grades == {"not tested"}


def test_one_lost_crystal_is_not_good_enough() -> None:
    graded = verdicts.verdicts(
        [
            _figure(crystals.LENGTHS, 0.1, "experiment"),
            {**_figure(crystals.LOST, 1.0, "", "CO2: it evaporated"), "unit": "of 4"},
        ]
    )
    (crystal_verdict,) = [verdict for verdict in graded if verdict["topic"] == "molecular crystals"]
    assert crystal_verdict["grade"] == "not good enough"
    assert "CO2: it evaporated" in crystal_verdict["sentence"]


def test_the_mean_names_the_largest_difference() -> None:
    figure = mean_absolute("x", "Å", "teacher", differences={"a": 1.0, "b": -2.0})
    assert (figure.value, figure.n, figure.detail) == (1.5, 2, "largest for b: -2.00 Å")
    assert mean_absolute("x", "Å", "teacher", differences={}).value is None


def test_the_command_needs_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section, "experiments_with_liquid", lambda _: EXPERIMENTS[:1])
    output = tmp_path / "report"
    assert main(["--chemistry", "--model", "ultra-tiny", "-o", str(output)]) == 0
    output_text = capsys.readouterr().out
    assert (
        "S22 interaction energies, mean absolute difference to the teacher, kcal/mol" in output_text
    )
    document = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    values = {
        (figure["name"], figure["against"]): figure["value"]
        for figure in document["students"][0]["chemistry"]["figures"]
    }
    assert 0.0 < values[interactions.AT_MINIMUM, "teacher"] < 3.0
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "What ultra-tiny is good for" in page
    assert "data:image/png" in page
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_readme(output / "metrics.json", readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n| | `ultra-tiny` | gfn2-xtb | so3lr, the teacher |")
    assert text.endswith(f"{END}\nafter\n")
    assert "\nold\n" not in text
    with pytest.raises(ValueError, match="must hold the lines"):
        write_readme(output / "metrics.json", output / "metrics.json")


def test_a_command_without_data_and_chemistry_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-o", str(tmp_path / "report")]) == 2
    assert "nothing to validate on" in capsys.readouterr().err
    assert main(["--chemistry", "--liquid", "-1", "-o", str(tmp_path / "report")]) == 2
    assert "--liquid is -1.0 ps" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
