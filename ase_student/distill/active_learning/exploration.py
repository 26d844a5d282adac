"""Frames of a student's own dynamics, gathered piece by piece, and the choice among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from ase_student.calculator import StudentCalculator
from ase_student.checkpoint import load_student
from ase_student.data.splits import split_settings
from ase_student.data.structures import Structures
from ase_student.distill.active_learning.initial import choose_starts
from ase_student.distill.active_learning.trajectories import (
    WATCHED,
    Trajectories,
    arrays_of,
    from_arrays,
    run_trajectories,
)
from ase_student.distill.active_learning.uncertainty import (
    Uncertainties,
    estimate_uncertainties,
    select,
)
from ase_student.distill.settings import StepSettings, option
from ase_student.dynamics.bonds import newly_bound
from ase_student.extrapolation.limits import Limits
from ase_student.extrapolation.ranges import TrainingRanges, ranges_of_files
from ase_student.files import file_sha256
from ase_student.jobs.store import ChunkStore, numbered
from ase_student.potentials.base import StudentPotential
from ase_student.student import Student

#: Sources of the structures: the most doubtful, and those drawn at random.
DOUBTFUL, RANDOM = "grown", "grown-random"


@dataclass(frozen=True)
class ExplorationSettings(StepSettings):
    """What dynamics to run and what to take of it.

    Attributes
    ----------
    trajectories : int
        Each begins at another structure, as long as there are any.
    temperatures : tuple of float, K
        Each trajectory has its own, drawn between the two.
    steps : int
        Of 2 fs, in each trajectory.
    every : int
        Steps between frames.
    frames : int
        How many to label.
    random_share : float
        Of these, the part that is drawn at random. It keeps the data like use, and tells whether
        the doubtful ones are worse.
    seed : int

    Raises
    ------
    ValueError
        If a value cannot be meant.
    """

    trajectories: int = option(200, "how many", least=1)
    temperatures: tuple[float, float] = option(
        (300.0, 1000.0), "each trajectory has its own between these", metavar="K"
    )
    steps: int = option(1000, "of 2 fs in each trajectory", least=1)
    every: int = option(50, "steps between frames", least=1)
    frames: int = option(400, "how many to label", least=1)
    random_share: float = option(
        0.5, "part of them that is drawn at random, the others being the worst"
    )
    seed: int = option(0, "of all that is drawn")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every % WATCHED or self.every > self.steps:
            raise ValueError(
                f"--every is {self.every}; it must be a multiple of {WATCHED} and not above "
                f"--steps, {self.steps}."
            )
        low, high = self.temperatures
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"--temperatures are {low:g} and {high:g} K; give the lower one, above 0 K, first."
            )
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"--random-share is {self.random_share:g}; it must be from 0 to 1.")
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}; it must not be negative.")

    @property
    def n_random(self) -> int:
        """Structures to draw at random."""
        return round(self.random_share * self.frames)


class Exploration:
    """One job of growing data, in a folder that keeps what is finished.

    Parameters
    ----------
    models : sequence of path
        Students, or their names: the first one runs the dynamics, the others say where it is
        likely to be wrong.
    paths : sequence of path
        HDF5 files of structures to start from.
    settings : Settings
    folder : path
        Where finished pieces are kept.
    labels : dict
        What decides the labels. Dynamics does not depend on it, but the job does.
    device : str
    threads : int, optional

    Raises
    ------
    ValueError
        If the folder was begun by another job, or there is nothing to start from.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        paths: Sequence[Path],
        settings: ExplorationSettings,
        *,
        folder: Path,
        labels: dict[str, Any],
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.settings, self.folder = settings, folder
        students = [load_student(model) for model in models]
        self.weights = [student.sha256 for student in students]
        self.metadata = [student.metadata for student in students]
        self.starts = choose_starts(paths, students, settings.trajectories, seed=settings.seed)
        self.calculators = [
            StudentCalculator(model, device=device, threads=threads, guard="off")
            for model in models
        ]
        self.limits = Limits(_seen(students[0], paths))
        job = {
            "students": self.weights,
            "structures": [file_sha256(path) for path in paths],
            **labels,
            **asdict(settings),
        }
        self._store = ChunkStore(folder, job, what="dynamics run")

    def uncertainties(self, structures: Sequence[Atoms]) -> Uncertainties:
        """Return what is held against the first student's forces on some structures."""
        return estimate_uncertainties(structures, self.calculators, self.limits)

    def run_dynamics(self) -> None:
        """Run the trajectories that are not on disk yet."""
        with tqdm(total=len(self.starts.structures), unit="trajectory", disable=None) as progress:
            for number, (members, confined) in enumerate(self.starts.pieces()):
                if self._store.missing([numbered(number)]):
                    starts = [self.starts.structures[index] for index in members]
                    rng = np.random.default_rng([self.settings.seed, number])
                    walks = self._walk(starts, confined, rng)
                    arrays = arrays_of(walks, self._uncertainties_of(walks, starts))
                    self._store.write(numbered(number), arrays)
                progress.update(len(members))

    def _uncertainties_of(self, walks: Trajectories, starts: list[Atoms]) -> Uncertainties:
        """Return the uncertainties of frames; new bonds count as outside of what training saw."""
        frames = walks.frames(starts)
        found = self.uncertainties(frames)
        owners = (starts[owner] for owner in walks.owners)
        bound = [newly_bound(*pair) for pair in zip(owners, frames, strict=True)]
        return replace(found, outside=found.outside + np.array(bound, dtype=np.int64))

    def _walk(self, starts: list[Atoms], confined: bool, rng: np.random.Generator) -> Trajectories:
        settings = self.settings
        temperatures = rng.uniform(*settings.temperatures, len(starts))
        driver = StudentPotential(self.calculators[0])
        return run_trajectories(
            starts,
            driver,
            temperatures.tolist(),
            n_steps=settings.steps,
            every=settings.every,
            rng=rng,
            confined=confined,
        )

    def choose(self) -> tuple[Structures, dict[str, Any]]:
        """Choose frames of all trajectories, and say what there was to choose from."""
        frames: list[Atoms] = []
        owners: list[int] = []
        found: list[Uncertainties] = []
        n_astray = 0
        for number, (members, _) in enumerate(self.starts.pieces()):
            starts = [self.starts.structures[index] for index in members]
            walks, doubted = from_arrays(self._store.read(numbered(number)), starts)
            frames += walks.frames(starts)
            owners += [members[owner] for owner in walks.owners]
            found.append(doubted)
            n_astray += len(walks.astray)
        if not frames:
            raise ValueError(
                f"all {n_astray} trajectories went astray at once: the student cannot run "
                "dynamics yet; train it longer, or lower --temperatures."
            )
        every = Uncertainties.joined(found)
        n_random = self.settings.n_random
        doubtful, random = select(
            frames, owners, every, n_doubtful=self.settings.frames - n_random, n_random=n_random,
            rng=np.random.default_rng(self.settings.seed),
        )  # fmt: skip
        chosen = doubtful + random
        molecules = [self.starts.molecules[owners[index]] for index in chosen]
        structures = Structures.from_atoms(
            [frames[index] for index in chosen],
            [DOUBTFUL] * len(doubtful) + [RANDOM] * len(random),
            molecules if any(molecules) else None,
        )
        return structures, {
            "trajectories": len(self.starts.structures),
            "astray": n_astray,
            "frames": len(frames),
            "outside": int((every.outside > 0).sum()),
        }


def _seen(student: Student, paths: Sequence[Path]) -> TrainingRanges:
    """Return what the training of a student saw, from the data if it does not carry it."""
    if "seen" in student.metadata:
        return TrainingRanges.from_dict(student.metadata["seen"])
    split, seed = split_settings(student.metadata) or ("molecule", None)
    return ranges_of_files(paths, student.cutoff, seed, split=split)
