"""Loss of accuracy by compression, measured against the same student in float64 and float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from ase_student.dynamics.langevin import Walker
from ase_student.export.references import reference_structures
from ase_student.potentials.base import Potential
from ase_student.testing import TOLERANCES, small_structures, structure
from ase_student.validation.physics.checks import RefusedError, ask
from ase_student.validation.physics.derivatives import force_deviation
from ase_student.validation.physics.dynamics import slope_uncertainty, total_energies
from ase_student.validation.physics.relaxation import relaxed

#: Steps of finite differences of the energy, Å, along directions in which all atoms move.
STEPS = (0.1, 0.01, 0.001)
TEMPERATURE = 300.0
TIMESTEP_FS = 0.5
#: Time between frames of dynamics that are taken for the comparison, fs.
FRAME_EVERY_FS = 25.0
N_FRAMES = 4
FRICTION = 0.02 / units.fs
SEED = 0

#: Documented limits, by the attribute of :class:`Cost`. Limits of errors are a tenth of the errors
#: of the bundled students. The disagreement with differences of the energy, which rounding and
#: curvature cause for every student, counts only as far as it exceeds that of the float32 file.
LIMITS = {
    "force_rmse": (0.01, "eV/Å"),
    "energy_mae": (0.5, "meV/atom"),
    "disagreement": (0.01, "eV/Å more than in float32"),
    "drift": (TOLERANCES.drift_mev_per_atom_ps, "meV/atom/ps"),
    "batch_forces": (1e-5, "eV/Å"),
}


@dataclass(frozen=True)
class Cost:
    """Errors and other figures of a file.

    Attributes
    ----------
    force_rmse : float, eV/Å
        Difference from the student in float64.
    energy_mae : float, meV/atom
        Difference from the student in float64.
    disagreement : dict of str to float, eV/Å
        Largest difference between forces and differences of the energy, by the step in Å.
    drift, drift_uncertainty : float, meV/atom/ps
        Slope of the total energy in NVE and its standard error.
    batch_forces : float, eV/Å
        Largest change of a force that comes from other structures in the same call.
    """

    force_rmse: float
    energy_mae: float
    disagreement: dict[str, float]
    drift: float
    drift_uncertainty: float
    batch_forces: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types; None for values that are not finite."""
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def crossed(cost: Cost, reference: Cost) -> list[str]:
    """Return a sentence for each documented limit that is crossed.

    Parameters
    ----------
    cost : Cost
    reference : Cost
        Cost of the same student in float32.
    """
    excess = {
        step: value - reference.disagreement[step] for step, value in cost.disagreement.items()
    }
    values = {
        "force_rmse": ("forces differ from the student's by", cost.force_rmse),
        "energy_mae": ("energies differ from the student's by", cost.energy_mae),
        **{
            f"disagreement {step}": (
                f"at {step} Å, forces deviate from differences of the energy by",
                value,
            )
            for step, value in excess.items()
        },
        "drift": (
            "beyond its uncertainty, the total energy drifts by",
            abs(cost.drift) - 2.0 * cost.drift_uncertainty,
        ),
        "batch_forces": ("other structures in the same call change forces by", cost.batch_forces),
    }
    sentences = []
    for name, (words, value) in values.items():
        limit, unit = LIMITS[name.partition(" ")[0]]
        # NaN is above every limit.
        if not value <= limit:
            sentences.append(f"{words} {value:.2g} {unit} (limit {limit:g})")
    return sentences


def molecules_for(elements: Sequence[int]) -> dict[str, Atoms]:
    """Return molecules with the given elements for dynamics."""
    candidates = {name: structure(name) for name in ("aspirin", "eight_elements")}
    molecules = {
        name: atoms for name, atoms in candidates.items() if set(atoms.numbers) <= set(elements)
    }
    if molecules:
        return molecules
    clusters = [atoms for atoms in reference_structures(elements) if 2 < len(atoms) <= 12]
    return {f"cluster of {len(atoms)}": atoms for atoms in clusters[:1]}


def structures_for(exact: Potential, elements: Sequence[int], seed: int = SEED) -> dict[str, Atoms]:
    """Return structures for comparison: small structures and frames of dynamics at 300 K.

    Parameters
    ----------
    exact : Potential
        Runs the dynamics.
    elements : sequence of int
    seed : int
        Of the dynamics; calibration uses another seed, to have other frames.
    """
    small = {
        name: atoms
        for name, atoms in {**small_structures(), "water_box": structure("water_box")}.items()
        if set(atoms.numbers) <= set(elements)
    }
    molecules = molecules_for(elements)
    latest = relaxed(exact, list(molecules.values()))
    frames = {}
    for frame in range(N_FRAMES):
        walkers = [
            Walker(
                atoms,
                TEMPERATURE,
                TIMESTEP_FS * units.fs,
                friction=FRICTION,
                seed=[seed, frame, index],
            )
            for index, atoms in enumerate(latest)
        ]
        total_energies(exact, walkers, round(FRAME_EVERY_FS / TIMESTEP_FS))
        latest = [walker.atoms for walker in walkers]
        for name, atoms in zip(molecules, latest, strict=True):
            frames[f"{name} at 300 K, frame {frame}"] = atoms
    return {**small, **frames}


def cost_of(
    potential: Potential,
    exact: Potential,
    structures: Mapping[str, Atoms],
    *,
    molecules: Mapping[str, Atoms],
    picoseconds: float,
) -> Cost:
    """Return the cost of a student in any form.

    Parameters
    ----------
    potential : Potential
    exact : Potential
        The original student in float64.
    structures : mapping of str to Atoms
        For errors.
    molecules : mapping of str to Atoms
        At minima, for dynamics and differences of the energy.
    picoseconds : float
        Length of NVE dynamics.
    """
    structure_list = list(structures.values())
    expected, answers = (
        ask(exact, structure_list),
        [ask(potential, [atoms])[0] for atoms in structure_list],
    )
    differences = np.concatenate(
        [
            answer.forces - reference.forces
            for answer, reference in zip(answers, expected, strict=True)
        ]
    )
    energies = [
        abs(answer.energy - reference.energy) / len(atoms)
        for answer, reference, atoms in zip(answers, expected, structure_list, strict=True)
    ]
    together = ask(potential, structure_list)
    batch_changes = [
        np.abs(answer.forces - separate.forces).max()
        for answer, separate in zip(together, answers, strict=True)
    ]
    drift, uncertainty = _drift(potential, molecules, picoseconds)
    return Cost(
        force_rmse=float(np.sqrt(np.mean(differences**2))),
        energy_mae=1000.0 * float(np.mean(energies)),
        disagreement={f"{step:g}": _disagreement(potential, molecules, step) for step in STEPS},
        drift=drift,
        drift_uncertainty=uncertainty,
        batch_forces=float(np.max(batch_changes)),
    )


def _disagreement(potential: Potential, molecules: Mapping[str, Atoms], step: float) -> float:
    rng = np.random.default_rng(SEED)
    return max(
        force_deviation(potential, atoms, ask(potential, [atoms])[0], step=step, rng=rng)
        for atoms in molecules.values()
    )


def _drift(
    potential: Potential, molecules: Mapping[str, Atoms], picoseconds: float
) -> tuple[float, float]:
    """Return the drift of the total energy with the largest excess over its uncertainty, and that.

    NaN if the dynamics is unstable.
    """
    starts = list(molecules.values())
    walkers = [
        # Half of the kinetic energy becomes potential energy.
        Walker(atoms, 2.0 * TEMPERATURE, TIMESTEP_FS * units.fs, friction=0.0, seed=[SEED, index])
        for index, atoms in enumerate(starts)
    ]
    n_steps = round(1000.0 * picoseconds / TIMESTEP_FS)
    times = np.arange(1, n_steps + 1, dtype=np.float64) * (TIMESTEP_FS / 1000.0)
    try:
        totals = total_energies(potential, walkers, n_steps)
    except RefusedError:
        return float("nan"), float("nan")
    drifts = []
    for atoms, energies in zip(starts, totals, strict=True):
        per_atom = 1000.0 * energies / len(atoms)
        slope = float(np.polyfit(times, per_atom, 1)[0])
        drifts.append((slope, slope_uncertainty(times, per_atom)))
    return max(drifts, key=lambda pair: abs(pair[0]) - 2.0 * pair[1])
