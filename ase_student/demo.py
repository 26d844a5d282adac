"""Run and plot molecular dynamics of aspirin with a student.

``python -m ase_student.demo`` relaxes the molecule, then runs it at constant energy and with a
Langevin thermostat, and writes both trajectories and a plot.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from numpy.typing import NDArray

from ase_student import cli
from ase_student.calculator import StudentCalculator
from ase_student.files import replaced_when_complete
from ase_student.testing import structure

TIME_STEP_FS = 0.5
FRICTION_PER_FS = 0.01
STEPS_PER_RECORD = 5  # several in a period of the fastest vibration, 9 fs
STEPS_PER_FRAME = 20
LARGEST_FORCE = 0.05  # eV/Å, after the relaxation

# Colors of Okabe and Ito, which color-blind readers can distinguish.
COLORS = {"kinetic": "#E69F00", "potential": "#56B4E9", "total": "#000000"}
TEMPERATURE_COLOR = "#D55E00"


@dataclass(frozen=True)
class DemoRun:
    """Records of a run.

    Attributes
    ----------
    name : str
    n_atoms : int
    n_degrees : int
        Degrees of freedom that the kinetic energy is shared by.
    times_ps : (n_records,) float
    potential, kinetic : (n_records,) float, eV
    n_steps : int
    seconds : float
        Wall time of all steps, including the writing of the trajectory.
    n_rebuilds : int
        Number of times that the neighbor list was built.
    """

    name: str
    n_atoms: int
    n_degrees: int
    times_ps: NDArray[np.float64]
    potential: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    n_steps: int
    seconds: float
    n_rebuilds: int

    @property
    def conserves_energy(self) -> bool:
        """Whether the total energy should be constant."""
        return self.name == "NVE"

    @property
    def total(self) -> NDArray[np.float64]:
        """Total energy in eV."""
        return self.potential + self.kinetic

    @property
    def temperatures(self) -> NDArray[np.float64]:
        """Temperatures in K."""
        return 2.0 * self.kinetic / (self.n_degrees * units.kB)

    @property
    def drift(self) -> float:
        """Slope of the total energy in meV/atom/ps."""
        return 1000.0 * slope(self.times_ps, self.total) / self.n_atoms

    @property
    def steps_per_second(self) -> float:
        """Steps in a second of wall time."""
        return self.n_steps / self.seconds


def slope(
    x: Sequence[float] | NDArray[np.float64], y: Sequence[float] | NDArray[np.float64]
) -> float:
    """Return the slope of the straight line that fits points by least squares.

    Parameters
    ----------
    x, y : (n,) float
        At least two points, not all at the same ``x``.

    Examples
    --------
    >>> slope([0.0, 1.0, 2.0], [5.0, 3.0, 1.0])
    -2.0
    """
    distances = np.asarray(x, dtype=np.float64) - np.mean(x)
    return float(distances @ (np.asarray(y) - np.mean(y)) / (distances @ distances))


def give_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw velocities with exactly the given temperature, without overall translation or rotation.

    A periodic system has no overall rotation: it has 3 N - 3 degrees of freedom, a molecule
    3 N - 6.

    Parameters
    ----------
    atoms : Atoms
        More than two atoms, not on a line.
    temperature : float, K
        Temperature of these degrees of freedom.
    rng : numpy.random.Generator
    """
    widths = np.sqrt(units.kB * temperature * atoms.get_masses())
    atoms.set_momenta(widths[:, None] * rng.standard_normal((len(atoms), 3)))
    Stationary(atoms, preserve_temperature=False)
    n_degrees = 3 * len(atoms) - 3
    if not atoms.pbc.any():
        ZeroRotation(atoms, preserve_temperature=False)
        n_degrees -= 3
    target = 0.5 * units.kB * temperature * n_degrees
    atoms.set_momenta(atoms.get_momenta() * math.sqrt(target / atoms.get_kinetic_energy()))


def run_dynamics(
    name: str, dynamics: MolecularDynamics, n_degrees: int, *, n_steps: int, path: Path
) -> DemoRun:
    """Run dynamics with a progress bar; write the trajectory and return what was recorded.

    Parameters
    ----------
    name : str
    dynamics : MolecularDynamics
        Its atoms have a :class:`StudentCalculator`.
    n_degrees : int
        Degrees of freedom that the kinetic energy is shared by.
    n_steps : int
    path : path
        ``.traj`` file to write; it is complete when the run ends.
    """
    atoms, neighbor_list = dynamics.atoms, dynamics.atoms.calc.neighbor_list
    records: list[tuple[float, float, float]] = []

    def record() -> None:
        elapsed_ps = dynamics.nsteps * TIME_STEP_FS / 1000.0
        records.append((elapsed_ps, atoms.get_potential_energy(), atoms.get_kinetic_energy()))
        bar.update(dynamics.nsteps - bar.n)

    dynamics.attach(record, interval=STEPS_PER_RECORD)
    rebuilds_before = neighbor_list.n_rebuilds
    with (
        replaced_when_complete(path) as temporary,
        Trajectory(temporary, "w", atoms) as trajectory,
        # A terminal shows the bar, a pipe or a file does not.
        _plotting("tqdm").tqdm(total=n_steps, desc=name, unit="step", disable=None) as bar,
    ):
        dynamics.attach(trajectory.write, interval=STEPS_PER_FRAME)
        start = time.perf_counter()
        dynamics.run(n_steps)
        seconds = time.perf_counter() - start
        bar.update(n_steps - bar.n)
    times_ps, potential, kinetic = np.array(records).T
    n_rebuilds = neighbor_list.n_rebuilds - rebuilds_before
    return DemoRun(
        name, len(atoms), n_degrees, times_ps, potential, kinetic, n_steps, seconds, n_rebuilds
    )


def plot(runs: Sequence[DemoRun], reference: float, temperature: float, *, path: Path) -> None:
    """Plot energies and temperatures of runs over time.

    Parameters
    ----------
    runs : sequence of DemoRun
        Each has a column.
    reference : float, eV
        Potential energy that is drawn as zero.
    temperature : float, K
        Drawn as a line.
    path : path
        ``.png`` file to write.
    """
    figure = _plotting("matplotlib.figure").Figure(figsize=(9.0, 5.4), layout="constrained")
    axes = figure.subplots(2, len(runs), sharex="col", sharey="row", squeeze=False)
    for run, (energy_axes, temperature_axes) in zip(runs, axes.T, strict=True):
        energies = {
            "kinetic": run.kinetic,
            "potential": run.potential - reference,
            "total": run.total - reference,
        }
        for label, values in energies.items():
            energy_axes.plot(run.times_ps, values, color=COLORS[label], lw=0.9, label=label)
        title = f"{run.name}: {_drift(run)}" if run.conserves_energy else run.name
        energy_axes.set_title(title, fontsize="medium")
        temperature_axes.plot(run.times_ps, run.temperatures, color=TEMPERATURE_COLOR, lw=0.9)
        temperature_axes.axhline(temperature, color="0.5", lw=0.9, ls="--", zorder=0)
        temperature_axes.set_title(f"mean {run.temperatures.mean():.0f} K", fontsize="medium")
        temperature_axes.set_xlim(0.0, run.times_ps[-1])
        temperature_axes.set_xlabel("time (ps)")
    axes[0, 0].set_ylabel("energy above the minimum (eV)")
    axes[1, 0].set_ylabel("temperature (K)")
    for panel in axes.flat:
        panel.set_ylim(bottom=0.0)
        panel.spines[["top", "right"]].set_visible(False)
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    with replaced_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=160)


def _plotting(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'the demo needs {module.partition(".")[0]}: pip install "ase-student[plot]"'
        ) from error


def run_demo(arguments: argparse.Namespace) -> None:
    """Relax the molecule, run dynamics, print summaries and write files, as the arguments say."""
    for module in ("matplotlib.figure", "tqdm"):
        _plotting(module)
    n_steps = _n_steps(arguments.picoseconds)
    temperature = arguments.temperature
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite; given {temperature} K.")
    if arguments.seed < 0:
        raise ValueError(f"seed must not be negative; given {arguments.seed}.")
    rng = np.random.default_rng(arguments.seed)
    calculator = StudentCalculator(arguments.model, backend=arguments.backend)
    output: Path = arguments.output
    atoms = structure("aspirin")
    atoms.calc = calculator
    cli.say(
        f"aspirin, {len(atoms)} atoms, {temperature:g} K, time step {TIME_STEP_FS} fs; "
        f"student '{calculator.info.name}' on {calculator.device} with {calculator.backend}"
    )
    minimum = _relax(atoms)
    # Half of the kinetic energy of a relaxed molecule soon becomes potential energy.
    give_velocities(atoms, 2.0 * temperature, rng)
    runs = []
    for name in ("NVE", "Langevin"):
        dynamics, n_degrees = _dynamics(name, atoms, temperature, rng)
        path = output / f"aspirin-{name.lower()}.traj"
        runs.append(run_dynamics(name, dynamics, n_degrees, n_steps=n_steps, path=path))
        cli.say(summary(runs[-1]))
    plot(runs, minimum, temperature, path=output / "aspirin.png")
    cli.say(f"wrote {output / 'aspirin.png'}, aspirin-nve.traj and aspirin-langevin.traj beside it")


def summary(run: DemoRun) -> str:
    """Return one or two lines on a run."""
    text = (
        f"{run.name}: {run.n_steps} steps, {run.steps_per_second:.0f} steps/s, "
        f"mean temperature {run.temperatures.mean():.0f} K, {run.n_rebuilds} neighbor list rebuilds"
    )
    if run.conserves_energy:
        text += f"\n{run.name}: {_drift(run)}, the slope of a least-squares line"
    return text


def _drift(run: DemoRun) -> str:
    return f"energy drift {run.drift:+.4f} meV/atom/ps"


def _n_steps(picoseconds: float) -> int:
    if not STEPS_PER_RECORD * TIME_STEP_FS <= 1000.0 * picoseconds < math.inf:
        raise ValueError(
            f"picoseconds must be at least {STEPS_PER_RECORD * TIME_STEP_FS / 1000.0}, for two "
            f"records of the energy; given {picoseconds}."
        )
    return round(1000.0 * picoseconds / TIME_STEP_FS)


def _relax(atoms: Atoms) -> float:
    """Relax a molecule and return its energy in eV."""
    optimizer = FIRE(atoms, logfile=None)
    optimizer.run(fmax=LARGEST_FORCE, steps=500)
    largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
    cli.say(f"relaxed in {optimizer.nsteps} steps of FIRE, largest force {largest:.2f} eV/Å")
    return float(atoms.get_potential_energy())


def _dynamics(
    name: str, atoms: Atoms, temperature: float, rng: np.random.Generator
) -> tuple[MolecularDynamics, int]:
    """Return dynamics of a copy of the atoms, and its degrees of freedom."""
    copy = atoms.copy()
    copy.calc = atoms.calc
    time_step = TIME_STEP_FS * units.fs
    if name == "NVE":
        # Momentum and angular momentum stay zero.
        return VelocityVerlet(copy, time_step), 3 * len(atoms) - 6
    thermostat = Langevin(
        copy,
        time_step,
        temperature_K=temperature,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,
        rng=rng,
    )
    return thermostat, 3 * len(atoms)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m ase_student.demo",
        description="Run and plot molecular dynamics of aspirin with a student.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo-output"), help="folder to write to"
    )
    parser.add_argument("--picoseconds", type=float, default=1.0, help="length of each run")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--model", default="tiny", help="name or file of the student")
    parser.add_argument("--backend", default="auto", help="of StudentCalculator")
    parser.add_argument("--seed", type=int, default=0, help="of velocities and thermostat")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 2 if the input is invalid."""
    arguments = _parser().parse_args(argv)
    return cli.run(lambda: run_demo(arguments), interrupted="interrupted.")


if __name__ == "__main__":
    sys.exit(main())
