"""Liquid water: pressure of a frame; pair distribution and density from dynamics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.nose_hoover_chain import IsotropicMTKNPT

from ase_student.dynamics.bonds import Topology
from ase_student.potentials.base import Potential
from ase_student.validation.chemistry.experiment import Figure, Measured
from ase_student.validation.chemistry.structures import read_structures
from ase_student.validation.extras import progress_bar
from ase_student.validation.physics.checks import RefusedError, ask
from ase_student.validation.physics.water import EXPERIMENT, TEMPERATURE, pair_distributions

#: Density of water at 300 K and 1 bar, g/cm³ (Wagner and Pruß, J. Phys. Chem. Ref. Data 31, 387,
#: 2002).
DENSITY = 0.9966
#: Relaxation times of thermostat and barostat, fs.
THERMOSTAT, BAROSTAT = 50.0, 500.0
TIMESTEP = 0.5 * units.fs
STEPS_PER_SAMPLE = 20
#: This share of a run at constant pressure is discarded at the start.
SETTLING = 0.5
#: A box with a lower density, g/cm³, is a vapor.
VAPOR = 0.5
BAR = 1e5 * units.Pascal
GRAM = 1e-3 * units.kg
CUBIC_CENTIMETER = 1e24

PRESSURE = "pressure of a frame of liquid water, difference"
PEAK = "first O-O peak of water, difference of the height"
DENSITY_NAME = "density of water at 300 K and 1 bar, difference"


def measure_pressure(potential: Potential) -> Measured:
    """Return the pressure in kbar of 64 waters at 1.0 g/cm³, without the kinetic part.

    Raises
    ------
    RefusedError
        If the potential has no stress.
    """
    frame = _frame()
    answer = ask(potential, [frame])[0]
    if answer.stress is None:
        raise RefusedError("it gives no stress")
    pressure = -float(answer.stress[:3].mean()) / (1e3 * BAR)
    return {"kbar": round(pressure, 4)}


def compare_pressure(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return the difference from the teacher's pressure."""
    if teacher is None:
        return []
    return [Figure(PRESSURE, round(measured["kbar"] - teacher["kbar"], 3), "kbar", "teacher", 1)]


def _frame() -> Atoms:
    return read_structures("water.extxyz")["64 waters"][0]


def measure_pair_distribution(picoseconds: float) -> Callable[[Potential], Measured]:
    """Return a function that measures pair distributions of 64 waters at 300 K.

    Parameters
    ----------
    picoseconds : float
        Length of the run; the first 30 % is discarded.
    """

    def measure(potential: Potential) -> Measured:
        distances, distributions, bonds_held = pair_distributions(potential, picoseconds)
        if not bonds_held:
            return {"picoseconds": picoseconds, "failed": "a bond broke"}
        oxygens = np.where(distances > 2.0, distributions["O-O"], 0.0)
        peak = int(np.argmax(oxygens))
        return {
            "picoseconds": picoseconds,
            "peak": [round(float(distances[peak]), 3), round(float(oxygens[peak]), 3)],
            "distances": distances.round(3).tolist(),
            "g": {key: values.round(3).tolist() for key, values in distributions.items()},
        }

    return measure


def compare_pair_distribution(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return differences of the first oxygen-oxygen peak from x-ray diffraction."""
    if "failed" in measured:
        return [Figure(PEAK, None, "", "experiment", 0, measured["failed"])]
    position, height = measured["peak"]
    detail = f"{measured['picoseconds']:g} ps"
    return [
        Figure(PEAK, round(height - EXPERIMENT[1], 3), "", "experiment", 1, detail),
        Figure(
            "first O-O peak of water, difference of the distance",
            round(position - EXPERIMENT[0], 3),
            "Å",
            "experiment",
            1,
            detail,
        ),
    ]


def measure_density(picoseconds: float, seed: int = 0) -> Callable[[Potential], Measured]:
    """Return a function that measures the density of 64 waters at 300 K and 1 bar.

    Dynamics is isotropic Martyna-Tobias-Klein (:class:`ase.md.nose_hoover_chain.IsotropicMTKNPT`)
    with steps of 0.5 fs.

    Parameters
    ----------
    picoseconds : float
        Length of the run; the first half is discarded.
    seed : int
        Of the initial velocities.
    """

    def measure(potential: Potential) -> Measured:
        atoms = _frame()
        topology = Topology.of(atoms)
        atoms.calc = _PotentialCalculator(potential)
        rng = np.random.default_rng(seed)
        widths = np.sqrt(units.kB * TEMPERATURE * atoms.get_masses())
        atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * widths[:, None])
        dynamics = IsotropicMTKNPT(
            atoms,
            timestep=TIMESTEP,
            temperature_K=TEMPERATURE,
            pressure_au=BAR,
            tdamp=THERMOSTAT * units.fs,
            pdamp=BAROSTAT * units.fs,
        )
        n_samples = round(1000.0 * picoseconds * units.fs / TIMESTEP / STEPS_PER_SAMPLE)
        densities = []
        with progress_bar(n_samples, "sample", label="density of water") as bar:
            for _ in range(n_samples):
                dynamics.run(STEPS_PER_SAMPLE)
                bar.update()
                densities.append(density(atoms))
                failure = _failure(atoms, topology, densities[-1])
                if failure:
                    return {"picoseconds": picoseconds, "failed": failure}
        equilibrated = densities[int(SETTLING * n_samples) :]
        return {
            "picoseconds": picoseconds,
            "density": round(float(np.mean(equilibrated)), 4),
            "deviation": round(float(np.std(equilibrated)), 4),
        }

    return measure


def density(atoms: Atoms) -> float:
    """Return the density of a periodic structure in g/cm³."""
    return float(atoms.get_masses().sum() / GRAM / (atoms.get_volume() / CUBIC_CENTIMETER))


def _failure(atoms: Atoms, topology: Topology, current: float) -> str:
    """Return why a run at constant pressure failed; empty if it continues."""
    if not np.isfinite(current):
        return "the cell is not finite"
    if current < VAPOR:
        return "it evaporated"
    # A topology describes periodic images of bonds in the initial cell. The cell changes here, so
    # only lengths to the nearest images are checked.
    positions, cell = atoms.positions, atoms.cell
    vectors = positions[topology.second] - positions[topology.first]
    fractional = vectors @ np.linalg.inv(cell.array)
    lengths = np.linalg.norm((fractional - np.round(fractional)) @ cell.array, axis=1)
    return "a bond broke" if lengths.max() > LONGEST_BOND else ""


#: A longer O-H bond of water, Å, is broken.
LONGEST_BOND = 1.45


def compare_density(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return the difference from the density of experiment."""
    if "failed" in measured:
        return [Figure(DENSITY_NAME, None, "%", "experiment", 0, measured["failed"])]
    difference = 100.0 * (measured["density"] / DENSITY - 1.0)
    detail = f"{measured['density']:.3f} g/cm³, {measured['picoseconds']:g} ps"
    return [Figure(DENSITY_NAME, round(difference, 2), "%", "experiment", 1, detail)]


class _PotentialCalculator(Calculator):
    """ASE calculator that returns the results of a potential."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = None,
        system_changes: Any = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        plain = Atoms(
            self.atoms.numbers, self.atoms.positions, cell=self.atoms.cell, pbc=self.atoms.pbc
        )
        answer = ask(self.potential, [plain])[0]
        if answer.stress is None:
            raise RefusedError("it gives no stress")
        self.results = {
            "energy": answer.energy,
            "free_energy": answer.energy,
            "forces": answer.forces,
            "stress": answer.stress,
        }
