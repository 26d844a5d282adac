import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.io import read

from ase_student import demo
from ase_student.checkpoint import available_students
from ase_student.demo import DemoRun, give_velocities, main, slope
from ase_student.testing import structure

PICOSECONDS = 0.03
FILES = {"aspirin.png", "aspirin-langevin.traj", "aspirin-nve.traj"}


def made_up_run(name: str, potential: np.ndarray, kinetic: np.ndarray) -> DemoRun:
    times_ps = np.linspace(0.0, 2.0, len(potential))
    return DemoRun(name, 10, 24, times_ps, potential, kinetic, 4000, 2.5, 7)


def test_slope_of_a_line_with_symmetric_noise():
    x = np.linspace(3.0, 5.0, 101)
    noise = np.cos(2 * np.pi * (x - 3.0))
    assert slope(x, 1e4 - 0.25 * x + noise) == pytest.approx(-0.25, abs=1e-10)


def test_slope_agrees_with_numpy():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 30))
    assert slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-12)


def test_drift_is_of_the_total_energy_per_atom():
    times_ps = np.linspace(0.0, 2.0, 41)
    exchanged = np.sin(40.0 * times_ps)
    run = made_up_run("NVE", -1e4 + 0.5 * times_ps + exchanged, 3.0 - exchanged)
    assert run.drift == pytest.approx(1000.0 * 0.5 / 10, abs=1e-6)
    assert run.steps_per_second == 1600.0


def test_temperature_counts_the_degrees_of_freedom():
    kinetic = np.array([0.5 * 24 * units.kB * 300.0, 0.0])
    run = made_up_run("NVE", np.zeros(2), kinetic)
    np.testing.assert_allclose(run.temperatures, [300.0, 0.0], rtol=0.0, atol=1e-9)


def test_summary_has_the_drift_only_where_energy_is_conserved():
    energies = np.zeros(5), np.ones(5)
    nve = demo.summary(made_up_run("NVE", *energies))
    assert nve.splitlines() == [
        "NVE: 4000 steps, 1600 steps/s, mean temperature 967 K, 7 neighbor list rebuilds",
        "NVE: energy drift +0.0000 meV/atom/ps, the slope of a least-squares line",
    ]
    assert "drift" not in demo.summary(made_up_run("Langevin", *energies))


def test_velocities_have_the_temperature_and_no_total_momentum():
    atoms = structure("aspirin")
    give_velocities(atoms, 450.0, np.random.default_rng(0))
    n_degrees = 3 * len(atoms) - 6
    assert 2.0 * atoms.get_kinetic_energy() / (n_degrees * units.kB) == pytest.approx(450.0)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(atoms.get_angular_momentum(), 0.0, atol=1e-10)


def test_a_periodic_system_keeps_its_rotation():
    atoms = structure("aspirin")
    atoms.set_cell([20.0, 20.0, 20.0])
    atoms.pbc = True
    give_velocities(atoms, 450.0, np.random.default_rng(0))
    n_degrees = 3 * len(atoms) - 3
    assert 2.0 * atoms.get_kinetic_energy() / (n_degrees * units.kB) == pytest.approx(450.0)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)


def run_demo(output: Path, *arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = main(["-o", str(output), "--picoseconds", str(PICOSECONDS), *arguments])
    assert code == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def demo_output(tmp_path_factory) -> tuple[str, Path]:
    """Return the text that the demo prints and the folder that it writes."""
    output = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return run_demo(output), output


def test_prints_speed_temperature_and_drift(demo_output):
    printed, _ = demo_output
    assert "student 'tiny'" in printed
    assert "NVE: 60 steps, " in printed
    assert "Langevin: 60 steps, " in printed
    assert printed.count("steps/s, mean temperature") == 2
    assert printed.count("meV/atom/ps") == 1


def test_progress_is_not_shown_in_a_pipe(demo_output, capfd, tmp_path):
    run_demo(tmp_path)
    assert capfd.readouterr().err == ""


def test_writes_the_files_and_nothing_else(demo_output):
    _, output = demo_output
    assert {path.name for path in output.iterdir()} == FILES
    assert (output / "aspirin.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["nve", "langevin"])
def test_trajectory_can_be_read(demo_output, name):
    _, output = demo_output
    frames = read(output / f"aspirin-{name}.traj", index=":")
    assert len(frames) == 1 + 60 // demo.STEPS_PER_FRAME
    for frame in frames:
        assert frame.get_chemical_formula() == "C9H8O4"
        assert np.isfinite(frame.get_potential_energy())
        assert frame.get_forces().shape == (21, 3)
    assert frames[-1].get_kinetic_energy() > 0.0


def test_energy_is_conserved(demo_output):
    _, output = demo_output
    frames = read(output / "aspirin-nve.traj", index=":")
    totals = np.array([frame.get_total_energy() for frame in frames])
    assert np.ptp(totals) <= 0.02  # eV; the kinetic energy alone moves by about 1


def test_the_seed_decides_the_trajectory(demo_output, tmp_path):
    _, output = demo_output

    def last(folder: Path, name: str) -> np.ndarray:
        return read(folder / f"aspirin-{name}.traj").positions

    run_demo(tmp_path / "same")
    run_demo(tmp_path / "other", "--seed", "1")
    for name in ("nve", "langevin"):
        same_seed = last(tmp_path / "same", name) - last(output, name)
        other_seed = last(tmp_path / "other", name) - last(output, name)
        assert np.abs(same_seed).max() <= 1e-4
        assert np.abs(other_seed).max() > 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--picoseconds", "0"], "picoseconds must be at least 0.0025"),
        (["--picoseconds", "nan"], "picoseconds must be at least 0.0025"),
        (["--picoseconds", "inf"], "picoseconds must be at least 0.0025"),
        (["--temperature", "-1"], "temperature must be positive and finite; given -1.0 K."),
        (["--temperature", "nan"], "temperature must be positive and finite; given nan K."),
        (["--model", "tiney"], "no student named 'tiney'"),
        (["--model", "missing.onnx"], "no such file"),
        (["--backend", "abacus"], "unknown backend 'abacus'"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_mistakes_get_one_line(arguments, message, tmp_path, capsys):
    assert main(["-o", str(tmp_path), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["-o", str(tmp_path / "taken")]) == 2
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["matplotlib", "tqdm"])
def test_missing_package_is_named_at_once(package, tmp_path, monkeypatch, capsys):
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f'error: the demo needs {package}: pip install "ase-student[plot]"\n'
    )


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.VelocityVerlet, "step", interrupt)
    assert main(["-o", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_tiny_is_bundled():
    assert "tiny" in available_students()
