"""Long runs: energy drift and memory over 100 ps, and 10,000 structures in one call."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from ase_student import StudentCalculator
from ase_student.checkpoint import STUDENT_NAMES
from ase_student.demo import give_velocities, slope
from ase_student.testing import TOLERANCES, structure
from ase_student.validation.physics.dynamics import slope_uncertainty
from torture.trials import Block, Figures, Trial

TEMPERATURE, TIME_STEP_FS = 300.0, 0.5
STEPS_IN_A_BLOCK, STEPS_PER_RECORD = 10_000, 100
#: The slope of a run shorter than 10 ps is not significant.
FEWEST_RECORDS = 200
#: Number of steps in the short form.
SHORT_STEPS = 1_000
#: Largest deviation of the total energy from its first value, eV/atom, and largest difference
#: between results of a structure alone and among others, eV and eV/Å.
LARGEST_DEVIATION, TOLERANCE = 5e-3, 1e-5
N_MANY, N_COMPARED = 10_000, 100


def resident_mb() -> float:
    """Return the memory of this process in MB; NaN if the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(row for row in status.read_text("ascii").splitlines() if row.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def constant_energy(student: str, n_steps: int, block: Block) -> Figures:
    """Run aspirin at constant energy, starting from the end of the previous block."""
    atoms = structure("aspirin")
    atoms.calc = StudentCalculator(student, device="cpu", threads=1)
    state = block.state
    if "positions" in state:
        atoms.positions[:] = state["positions"]
        atoms.set_momenta(state["momenta"])
    else:
        FIRE(atoms, logfile=None).run(fmax=0.05, steps=500)
        # Half of the kinetic energy of a relaxed molecule soon becomes potential energy.
        give_velocities(atoms, 2.0 * TEMPERATURE, block.rng)
        state.update(energies=[], kinetic=[])
    dynamics = VelocityVerlet(atoms, TIME_STEP_FS * units.fs)
    dynamics.run(STEPS_PER_RECORD)  # allocates memory that is allocated only once
    before = resident_mb()
    _record(state, atoms)
    for _ in range(n_steps // STEPS_PER_RECORD - 1):
        dynamics.run(STEPS_PER_RECORD)
        _record(state, atoms)
    state.update(positions=atoms.positions.tolist(), momenta=atoms.get_momenta().tolist())
    energies = np.array(state["energies"]) / len(atoms)
    worst = float(np.abs(energies - energies[0]).max())
    return {
        "steps": n_steps,
        "largest_memory_growth_mb": resident_mb() - before,
        "largest_deviation_mev_per_atom": 1000.0 * worst,
        "lost": int(not worst < LARGEST_DEVIATION),
    }


def _record(state: dict, atoms: Atoms) -> None:
    state["energies"].append(atoms.get_total_energy())
    state["kinetic"].append(atoms.get_kinetic_energy())


def final_figures(state: dict) -> Figures:
    """Return the figures of the whole run of a student.

    These are the drift of the energy, its uncertainty, and the mean temperature.
    """
    if len(state.get("energies", [])) < FEWEST_RECORDS:
        return {}
    n_atoms = len(structure("aspirin"))
    times = np.arange(len(state["energies"])) * STEPS_PER_RECORD * TIME_STEP_FS / 1000.0
    kelvin = 2.0 * np.mean(state["kinetic"]) / ((3 * n_atoms - 6) * units.kB)
    energies = 1000.0 * np.array(state["energies"]) / n_atoms
    return {
        "drift_mev_per_atom_ps": slope(times, energies),
        "drift_uncertainty_mev_per_atom_ps": slope_uncertainty(times, energies),
        "temperature_k": float(kelvin),
    }


def drifts(state: dict) -> bool:
    """Return whether the energy of a student's run drifts by more than validation allows."""
    figures = final_figures(state)
    if not figures:
        return False
    drift, uncertainty = (
        figures[f"{name}_mev_per_atom_ps"] for name in ("drift", "drift_uncertainty")
    )
    return not abs(drift) - 2.0 * uncertainty <= TOLERANCES.drift_mev_per_atom_ps


def many(n_structures: int, block: Block) -> Figures:
    """Compute many structures of different sizes in one call, and some of them separately."""
    calculator = StudentCalculator("tiny", device="cpu", threads=1, guard="off")
    names = ("aspirin", "water_dimer", "triclinic", "eight_elements", "slab", "atom")
    structures = []
    for index in range(n_structures):
        atoms = structure(names[index % len(names)])
        atoms.positions += 0.02 * block.rng.standard_normal(atoms.positions.shape)
        structures.append(atoms)
    calculator.calculate_many(structures[: n_structures // 10])
    before = resident_mb()
    results = calculator.calculate_many(structures)
    held_mb = sum(value.nbytes for entry in results for value in entry.values()
                  if isinstance(value, np.ndarray)) / 1e6  # fmt: skip
    growth = resident_mb() - before - held_mb
    errors = []
    for index in block.rng.choice(n_structures, N_COMPARED, replace=False).tolist():
        calculator.calculate(structures[index])
        alone, result = calculator.results, results[index]
        errors.append(abs(alone["energy"] - result["energy"]))
        errors.append(np.abs(alone["forces"] - result["forces"]).max())
    return {
        "structures": n_structures,
        "compared": N_COMPARED,
        "wrong": sum(error > TOLERANCE for error in errors),
        "largest_error": float(max(errors)),
        "largest_memory_growth_mb": growth,
    }


def trials(short: bool) -> list[Trial]:
    """Return the long runs, or similar runs that take seconds."""
    steps = SHORT_STEPS if short else STEPS_IN_A_BLOCK
    students = ("tiny",) if short else STUDENT_NAMES
    return [
        Trial("many", "structures in one `calculate_many`",
              functools.partial(many, 600 if short else N_MANY), 1, 1, ("wrong",)),
        *(
            Trial(f"nve {name}", f"steps of aspirin at constant energy, `{name}`, 0.5 fs",
                  functools.partial(constant_energy, name, steps), 20, 1, ("lost",))
            for name in students
        ),
    ]  # fmt: skip
