"""Draw docs/tiny.png: errors of the forces of 'tiny', and conservation of its energy.

Needs the extras [data] and [plot]; run it as ``python docs/figure.py``.
"""

from pathlib import Path

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ase_student import StudentCalculator
from ase_student.data.hdf5 import Dataset
from ase_student.demo import give_velocities, slope
from ase_student.files import replaced_when_complete
from ase_student.testing import structure

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "validation" / "reference" / "nci-so3lr-test.h5"
PICOSECONDS = 10.0
TIME_STEP_FS = 0.5


def held_out_forces(calculator: StudentCalculator) -> tuple[np.ndarray, np.ndarray]:
    """Return the teacher's and the student's force components, eV/Å."""
    with Dataset(REFERENCE) as dataset:
        structures, labels = dataset.read_structures(), dataset.read_labels()
    atoms = [structures.atoms(index) for index in labels.structure_indices]
    results = calculator.calculate_many(atoms)
    return labels.forces.ravel(), np.concatenate([row["forces"] for row in results]).ravel()


def total_energies(calculator: StudentCalculator) -> tuple[np.ndarray, np.ndarray]:
    """Return times in ps and total energies in meV per atom of aspirin at constant energy."""
    atoms = structure("aspirin")
    atoms.calc = calculator
    FIRE(atoms, logfile=None).run(fmax=0.05, steps=500)
    give_velocities(atoms, 600.0, np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, TIME_STEP_FS * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=10)
    dynamics.run(round(PICOSECONDS * 1000.0 / TIME_STEP_FS))
    times = np.arange(len(energies)) * 10 * TIME_STEP_FS / 1000.0
    return times, 1000.0 * (np.array(energies) - energies[0]) / len(atoms)


def draw(path: Path) -> None:
    """Draw the figure."""
    calculator = StudentCalculator("tiny", guard="off")
    teacher, student = held_out_forces(calculator)
    times, energies = total_energies(calculator)
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    parity, drift = figure.subplots(1, 2, width_ratios=[1.0, 1.5])
    limit = 15.0
    parity.hexbin(
        teacher, student, gridsize=90, extent=(-limit, limit, -limit, limit),
        norm=LogNorm(), cmap="viridis", linewidths=0.1,
    )  # fmt: skip
    parity.plot([-limit, limit], [-limit, limit], color="0.6", lw=0.6)
    error = student - teacher
    rmse, r2 = np.sqrt((error**2).mean()), 1.0 - (error**2).mean() / teacher.var()
    parity.set_title(f"held-out molecules: RMSE {rmse:.2f} eV/Å, R² {r2:.4f}", fontsize="medium")
    parity.set_xlabel("SO3LR force component (eV/Å)")
    parity.set_ylabel("tiny (eV/Å)")
    parity.set_aspect("equal")
    drift.plot(times, energies, color="black", lw=0.6)
    rate = slope(times, energies)
    drift.set_title(
        f"aspirin at constant energy, 300 K: {rate:+.4f} meV/atom/ps", fontsize="medium"
    )
    drift.set_ylim(-2.0, 2.0)
    drift.set_xlim(0.0, times[-1])
    drift.set_xlabel("time (ps)")
    drift.set_ylabel("total energy (meV/atom)")
    for axes in (parity, drift):
        axes.spines[["top", "right"]].set_visible(False)
    with replaced_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=150)
    print(f"{path}: force RMSE {rmse:.4f} eV/Å, R² {r2:.5f}, drift {rate:+.4f} meV/atom/ps")


if __name__ == "__main__":
    draw(Path(__file__).with_name("tiny.png"))
