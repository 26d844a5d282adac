"""Test whether dynamics is stable: no bond changes, no runaway temperature, finite energies.

``python -m ase_student.validation.stability`` is the command that tests molecules of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from ase_student.dynamics.bonds import Topology
from ase_student.dynamics.langevin import Walker
from ase_student.files import replaced_when_complete
from ase_student.potentials.base import Answer, Potential, Refusal, as_potential
from ase_student.validation.extras import progress_bar

FRICTION = 0.01 / units.fs
#: Number of steps between two checks of bonds and temperatures.
CHECK_STEPS = 10
#: A run that is interrupted loses at most this many steps.
SAVE_STEPS = 1000
#: The temperature is judged after this time: until then the thermostat removes the heat that comes
#: from the strain of the first structure.
SETTLING_FS = 1000.0
WINDOW_FS = 1000.0
#: The mean temperature of a window is too high above this multiple of the thermostat's, which is
#: six standard deviations for 10 atoms. A single temperature is too high this many standard
#: deviations, each sqrt(2 / 3N) of the thermostat's temperature, above the thermostat's.
WINDOW_RATIO = 1.5
DEVIATIONS = 8.0


@dataclass(frozen=True)
class Run:
    """A run of dynamics: the structure, its temperature and its length.

    Attributes
    ----------
    name : str
    atoms : Atoms
    temperature : float, K
    picoseconds : float
    """

    name: str
    atoms: Atoms
    temperature: float
    picoseconds: float


@dataclass(frozen=True)
class Stability:
    """Whether one run was stable.

    Attributes
    ----------
    name : str
    n_atoms : int
    temperature : float, K
    picoseconds : float
        Length that was requested.
    stable : bool
    reason : str
        Why the run was not stable; empty if it was.
    failed_step : int or None
        Step at which the failure was noticed.
    failed_ps : float or None
        Time of that step, ps.
    mean_temperature : float, K
        Mean after the first ps, while the run was stable; 0 if it failed before.
    longest_bond : float
        Longest bond that occurred, as a multiple of the sum of covalent radii.
    """

    name: str
    n_atoms: int
    temperature: float
    picoseconds: float
    stable: bool
    reason: str
    failed_step: int | None
    failed_ps: float | None
    mean_temperature: float
    longest_bond: float


@dataclass
class _Progress:
    """Current state of one run."""

    run: Run
    walker: Walker
    topology: Topology
    n_steps: int
    longest_bond: float = 0.0
    temperatures: list[float] = field(default_factory=list)
    reason: str = ""
    failed_step: int | None = None

    def fail(self, step: int, reason: str) -> None:
        """Record the step and the reason of a failure."""
        self.failed_step, self.reason = step, reason


def check_stability(
    potential: Any,
    runs: Sequence[Run],
    timestep_fs: float = 1.0,
    *,
    seed: int = 0,
    state: Path | None = None,
) -> list[Stability]:
    """Run structures side by side with a Langevin thermostat and return which runs were stable.

    A run is stable if no bond breaks, forms or collapses (:mod:`ase_student.dynamics.bonds`),
    energies and forces stay finite, and the temperature does not run away: after the first ps no
    mean over a ps is above 1.5 times the thermostat's, and no single temperature is more than 8
    standard deviations of the canonical ensemble above it. A run that fails is stopped; this does
    not change the results of the others.

    Parameters
    ----------
    potential : StudentCalculator, teacher or ASE calculator
    runs : sequence of Run
    timestep_fs : float
        Above 0 and at most 1, because hydrogen has its natural mass.
    seed : int
    state : path, optional
        File with the state of all runs, from which an interrupted call continues. It is not deleted
        at the end, in case a later step of the caller fails.

    Returns
    -------
    list of Stability
        In the order of `runs`.

    Raises
    ------
    ValueError
        If the time step, a temperature or a length is invalid, or `state` is from another call.
    """
    if not 0.0 < timestep_fs <= 1.0:
        raise ValueError(f"the time step must be above 0 and at most 1 fs; given {timestep_fs} fs.")
    for run in runs:
        if not (run.temperature > 0.0 and timestep_fs <= run.picoseconds * 1000.0 < np.inf):
            raise ValueError(
                f"'{run.name}': the temperature must be positive and the length finite and at "
                f"least one time step; given {run.temperature} K and {run.picoseconds} ps."
            )
    potential = as_potential(potential)
    all_progress = [
        _Progress(
            run,
            Walker(
                run.atoms,
                run.temperature,
                timestep_fs * units.fs,
                friction=FRICTION,
                seed=[seed, index],
            ),
            Topology.of(run.atoms),
            round(1000.0 * run.picoseconds / timestep_fs),
        )
        for index, run in enumerate(runs)
    ]
    job = _fingerprint(potential, runs, timestep_fs, seed)
    start = _restore(state, job, all_progress) if state is not None and state.exists() else 0
    _advance(potential, all_progress, start, timestep_fs, job, state)
    return [_verdict(progress, timestep_fs) for progress in all_progress]


def _advance(
    potential: Potential,
    all_progress: list[_Progress],
    start: int,
    timestep_fs: float,
    job: str,
    state: Path | None,
) -> None:
    """Run until the longest run is complete; save the state at intervals."""
    n_steps = max((progress.n_steps for progress in all_progress), default=0)
    active = _active(all_progress, start)
    answers = potential.evaluate([progress.walker.atoms for progress in active])
    answers = _keep_answered(active, answers, start)
    with progress_bar(n_steps, "step", start, label="dynamics") as bar:
        for step in range(start, n_steps):
            if not active:
                break
            for progress, answer in zip(active, answers, strict=True):
                progress.walker.move(step, answer.forces)  # type: ignore[union-attr]
            answers = potential.evaluate([progress.walker.atoms for progress in active])
            answers = _keep_answered(active, answers, step + 1)
            for progress, answer in zip(active, answers, strict=True):
                progress.walker.arrive(answer.forces)  # type: ignore[union-attr]
            bar.update()
            if (step + 1) % CHECK_STEPS == 0 or any(
                step + 1 == progress.n_steps for progress in active
            ):
                for progress in active:
                    _check(progress, step + 1, timestep_fs)
                continues = [
                    step + 1 < progress.n_steps and not progress.reason for progress in active
                ]
                answers = [
                    answer
                    for answer, is_active in zip(answers, continues, strict=True)
                    if is_active
                ]
                active = [
                    progress
                    for progress, is_active in zip(active, continues, strict=True)
                    if is_active
                ]
            if state is not None and (step + 1) % SAVE_STEPS == 0:
                _save(state, job, step + 1, all_progress)


def _active(all_progress: list[_Progress], step: int) -> list[_Progress]:
    return [
        progress for progress in all_progress if step < progress.n_steps and not progress.reason
    ]


def _keep_answered(active: list[_Progress], answers: list[Answer], step: int) -> list[Answer]:
    """Mark runs whose energies or forces are not finite as failed; remove them from `active`."""
    answered: list[Answer] = []
    for progress, answer in zip(list(active), answers, strict=True):
        if isinstance(answer, Refusal):
            progress.fail(step, answer.reason)
        elif not (np.isfinite(answer.energy) and np.isfinite(answer.forces).all()):
            progress.fail(step, "energy or forces are not finite")
        else:
            answered.append(answer)
    active[:] = [progress for progress in active if not progress.reason]
    return answered


def _check(progress: _Progress, step: int, timestep_fs: float) -> None:
    """Check the bonds and the temperature of a run."""
    walker = progress.walker
    stretches = progress.topology.stretches(walker.atoms)
    progress.longest_bond = max(progress.longest_bond, stretches.max(initial=0.0))
    try:
        change = progress.topology.change(walker.atoms)
    except ValueError as error:
        # Two atoms at the same position, or positions that are too large.
        change = str(error)
    if change is not None:
        progress.fail(step, change)
        return
    if step * timestep_fs <= SETTLING_FS:
        return
    target = progress.run.temperature
    progress.temperatures.append(walker.temperature)
    highest = target * (1.0 + DEVIATIONS * np.sqrt(2.0 / (3 * len(walker.atoms))))
    window = max(1, round(WINDOW_FS / (CHECK_STEPS * timestep_fs)))
    recent = progress.temperatures[-window:]
    if walker.temperature > highest:
        progress.fail(step, f"the temperature jumped to {walker.temperature:.0f} K")
    elif len(recent) == window and np.mean(recent) > WINDOW_RATIO * target:
        progress.fail(step, f"the temperature rose to {np.mean(recent):.0f} K")


def _verdict(progress: _Progress, timestep_fs: float) -> Stability:
    failed = progress.failed_step
    return Stability(
        name=progress.run.name,
        n_atoms=len(progress.run.atoms),
        temperature=progress.run.temperature,
        picoseconds=progress.run.picoseconds,
        stable=not progress.reason,
        reason=progress.reason,
        failed_step=failed,
        failed_ps=None if failed is None else failed * timestep_fs / 1000.0,
        mean_temperature=float(np.mean(progress.temperatures)) if progress.temperatures else 0.0,
        longest_bond=float(progress.longest_bond),
    )


def _fingerprint(potential: Potential, runs: Sequence[Run], timestep_fs: float, seed: int) -> str:
    """Return a hash of everything that determines the results."""
    calculator = getattr(potential, "calculator", None)
    weights = getattr(getattr(calculator, "info", None), "weights_sha256", "")
    digest = hashlib.sha256(f"{potential.name} {weights} {timestep_fs} {seed}".encode())
    for run in runs:
        digest.update(f"{run.name} {run.temperature} {run.picoseconds} {run.atoms.pbc}".encode())
        for array in (run.atoms.numbers, run.atoms.positions, run.atoms.cell.array):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _save(path: Path, job: str, step: int, all_progress: list[_Progress]) -> None:
    document = {
        "job": job,
        "step": step,
        "runs": [
            {
                "longest_bond": float(progress.longest_bond),
                "temperatures": progress.temperatures,
                "reason": progress.reason,
                "failed_step": progress.failed_step,
            }
            for progress in all_progress
        ],
    }
    with replaced_when_complete(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            document=np.array(json.dumps(document)),
            positions=np.concatenate(
                [progress.walker.atoms.positions for progress in all_progress]
            ),
            velocities=np.concatenate([progress.walker.velocities for progress in all_progress]),
        )


def _restore(path: Path, job: str, all_progress: list[_Progress]) -> int:
    """Set every run to its state in the file and return the step."""
    try:
        with np.load(path, allow_pickle=False) as content:
            document = json.loads(str(content["document"]))
            positions, velocities = content["positions"], content["velocities"]
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(
            f"'{path}' does not hold the state of a stability run: delete it."
        ) from error
    if document["job"] != job:
        raise ValueError(
            f"'{path}' is the state of other runs or of another potential: delete it, "
            "or give another output."
        )
    start = 0
    for progress, saved in zip(all_progress, document["runs"], strict=True):
        stop = start + len(progress.walker.atoms)
        progress.walker.atoms.positions[:] = positions[start:stop]
        progress.walker.velocities = velocities[start:stop].copy()
        progress.longest_bond, progress.temperatures = saved["longest_bond"], saved["temperatures"]
        progress.reason, progress.failed_step = saved["reason"], saved["failed_step"]
        start = stop
    return int(document["step"])
