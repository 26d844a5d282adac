"""Check that dynamics conserves the energy, and that dynamics with a thermostat is stable."""

from __future__ import annotations

import numpy as np
from ase import units
from numpy.typing import NDArray

from ase_student.dynamics.langevin import Walker
from ase_student.potentials.base import Potential
from ase_student.testing import TOLERANCES
from ase_student.validation.extras import progress_bar
from ase_student.validation.physics.checks import Check, Subject, ask
from ase_student.validation.physics.relaxation import relaxed
from ase_student.validation.stability.run import Run, check_stability

TEMPERATURE = 300.0
TIMESTEP_FS = 0.5
#: Allowed ratios of the fluctuation of the total energy at the full and at half the time step. It
#: is proportional to the square of the time step, so that 4 is expected. Steps of the energy at the
#: cutoff or noise in the forces change the ratio.
RATIO_LIMITS = (3.0, 5.0)
N_MOLECULES = 3
#: Total energies at least this many fs apart, a period of the fastest vibration, are independent.
CORRELATION_FS = 10.0
SEED = 0


def check_energy_conservation(subject: Subject, picoseconds: float) -> list[Check]:
    """Return the drift of the total energy in NVE, and how it depends on the time step.

    The drift is the absolute slope of a straight line, in meV/atom/ps, minus twice its standard
    error, which falls with the length of the run to the power 3/2.
    """
    molecules = dict(list(subject.molecules.items())[:N_MOLECULES])
    if not molecules:
        return [Check("drift of the energy", None, detail="no molecules to run")]
    starts = relaxed(subject.potential, list(molecules.values()))
    n_steps = round(1000.0 * picoseconds / TIMESTEP_FS)
    walkers = [
        # Half of the kinetic energy becomes potential energy.
        Walker(atoms, 2.0 * TEMPERATURE, timestep * units.fs, friction=0.0, seed=[SEED, index])
        for timestep in (TIMESTEP_FS, 0.5 * TIMESTEP_FS)
        for index, atoms in enumerate(starts)
    ]
    energies = total_energies(subject.potential, walkers, n_steps)
    n = len(starts)
    drifts: dict[str, float] = {}
    uncertainties: dict[str, float] = {}
    ratios: dict[str, float] = {}
    times = np.arange(1, n_steps + 1, dtype=np.float64) * (TIMESTEP_FS / 1000.0)
    for index, name in enumerate(molecules):
        coarse, fine = energies[index], energies[n + index]
        per_atom = 1000.0 * coarse / len(starts[index])
        drifts[name] = float(np.polyfit(times, per_atom, 1)[0])
        uncertainties[name] = slope_uncertainty(times, per_atom)
        # Both runs over the same time from the same start.
        ratios[name] = float(coarse[: n_steps // 2].std() / fine.std())
    worst = max(drifts, key=lambda name: abs(drifts[name]) - 2.0 * uncertainties[name])
    beyond = abs(drifts[worst]) - 2.0 * uncertainties[worst]
    limit = TOLERANCES.drift_mev_per_atom_ps
    curves = {
        "times": np.round(times[::10], 5).tolist(),
        "energies": {
            name: np.round(1000.0 * (total - total[0]) / len(atoms), 5)[::10].tolist()
            for name, total, atoms in zip(molecules, energies[:n], starts, strict=True)
        },
    }
    detail = f"{drifts[worst]:+.4f} ± {uncertainties[worst]:.4f} for {worst}, {picoseconds:g} ps"
    mean = float(np.mean(list(ratios.values())))
    low, high = RATIO_LIMITS
    return [
        Check(
            "drift of the energy",
            bool(beyond <= limit),
            max(0.0, beyond),
            limit,
            "meV/atom/ps",
            detail,
            curves,
        ),
        Check(
            "fluctuation of the energy at half the time step",
            bool(low <= mean <= high),
            mean,
            high,
            "times smaller",
            f"expected 4, allowed {low:g} to {high:g}; mean of {n} molecules",
        ),
    ]


def total_energies(
    potential: Potential, walkers: list[Walker], n_steps: int
) -> list[NDArray[np.float64]]:
    """Return the total energy in eV of each walker after each step, side by side."""
    energies = np.zeros((len(walkers), n_steps))
    answers = ask(potential, [walker.atoms for walker in walkers])
    with progress_bar(n_steps, "step", label="NVE") as bar:
        for step in range(n_steps):
            for walker, answer in zip(walkers, answers, strict=True):
                walker.move(step, answer.forces)
            answers = ask(potential, [walker.atoms for walker in walkers])
            for row, (walker, answer) in enumerate(zip(walkers, answers, strict=True)):
                walker.arrive(answer.forces)
                kinetic = 1.5 * len(walker.atoms) * units.kB * walker.temperature
                energies[row, step] = answer.energy + kinetic
            bar.update()
    return list(energies)


def slope_uncertainty(times: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the standard error of the slope of values that fluctuate."""
    rate = np.polyfit(times, values, 1)[0]
    residuals = values - values.mean() - rate * (times - times.mean())
    length = times[-1] - times[0]
    n_independent = max(2.0, 1000.0 * length / CORRELATION_FS)
    return float(residuals.std() * np.sqrt(12.0 / n_independent) / length)


def check_thermostat(subject: Subject, picoseconds: float) -> list[Check]:
    """Return whether dynamics at 300 and 600 K is stable."""
    runs = [
        Run(f"{name} at {temperature:g} K", atoms, temperature, picoseconds)
        for temperature in (300.0, 600.0)
        for name, atoms in subject.molecules.items()
    ]
    if not runs:
        return [Check("stability in NVT", None, detail="no molecules to run")]
    results = check_stability(subject.potential, runs)
    failed = [result for result in results if not result.stable]
    detail = f"{len(results) - len(failed)} of {len(results)} runs of {picoseconds:g} ps stable"
    if failed:
        detail += f"; {failed[0].name}: {failed[0].reason} after {failed[0].failed_ps:.3f} ps"
    return [
        Check("stability in NVT", not failed, float(len(failed)), 0.0, "runs not stable", detail)
    ]
