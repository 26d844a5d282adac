"""Exploration: frames of a student's own dynamics in pieces, and selection among them."""

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
    CHECK_INTERVAL,
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

#: Sources of the structures: the most uncertain, and those drawn at random.
DOUBTFUL, RANDOM = "grown", "grown-random"


@dataclass(frozen=True)
class ExplorationSettings(StepSettings):
    """Settings of the dynamics and of the selection of frames.

    Attributes
    ----------
    trajectories : int
        Number of trajectories. Each starts from another structure, as long as there are enough.
    temperatures : tuple of float, K
        Range from which the temperature of each trajectory is drawn.
    steps : int
        Number of steps of 2 fs in each trajectory.
    every : int
        Steps between frames.
    frames : int
        Number of frames to label.
    random_share : float
        Share of these frames that is drawn at random. Random frames keep the data similar to use,
        and show whether the errors of the uncertain frames are larger.
    seed : int

    Raises
    ------
    ValueError
        If a value is invalid.
    """

    trajectories: int = option(200, "how many", least=1)
    temperatures: tuple[float, float] = option(
        (300.0, 1000.0), "each trajectory has its own between these", metavar="K"
    )
    steps: int = option(1000, "of 2 fs in each trajectory", least=1)
    every: int = option(50, "steps between frames", least=1)
    frames: int = option(400, "how many to label", least=1)
    random_share: float = option(
        0.5, "share of them that is drawn at random; the others are the most uncertain"
    )
    seed: int = option(0, "of all random choices", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every % CHECK_INTERVAL or self.every > self.steps:
            raise ValueError(
                f"--every is {self.every}; it must be a multiple of {CHECK_INTERVAL} and not above "
                f"--steps, {self.steps}."
            )
        low, high = self.temperatures
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"--temperatures are {low:g} and {high:g} K; give the lower one, above 0 K, first."
            )
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"--random-share is {self.random_share:g}; it must be from 0 to 1.")

    @property
    def n_random(self) -> int:
        """Number of structures to draw at random."""
        return round(self.random_share * self.frames)


class Exploration:
    """Exploration by a student's dynamics, in a folder that keeps finished pieces.

    Parameters
    ----------
    models : sequence of path
        Students, or their names: the first student runs the dynamics; where the forces of the
        others differ, it is likely to be wrong.
    paths : sequence of path
        HDF5 files of structures to start from.
    settings : ExplorationSettings
    folder : path
        Folder in which finished pieces are kept.
    labels : dict
        Everything that determines the labels. The dynamics do not depend on it, but a folder
        belongs to one set of label settings.
    device : str
    threads : int, optional

    Raises
    ------
    ValueError
        If the folder belongs to another job, or there are no structures to start from.
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
        self.limits = Limits(_training_ranges(students[0], paths))
        job = {
            "students": self.weights,
            "structures": [file_sha256(path) for path in paths],
            **labels,
            **asdict(settings),
        }
        self._store = ChunkStore(folder, job, what="dynamics run")

    def uncertainties(self, structures: Sequence[Atoms]) -> Uncertainties:
        """Return the uncertainties of the first student's forces on some structures."""
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
        """Return the uncertainties of frames; new bonds count as outside of the training ranges."""
        frames = walks.frames(starts)
        uncertainties = self.uncertainties(frames)
        owners = (starts[owner] for owner in walks.owners)
        bound = [newly_bound(*pair) for pair in zip(owners, frames, strict=True)]
        return replace(
            uncertainties, outside=uncertainties.outside + np.array(bound, dtype=np.int64)
        )

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
        """Return chosen frames of all trajectories, and a report with counts."""
        frames: list[Atoms] = []
        owners: list[int] = []
        uncertainties_by_piece: list[Uncertainties] = []
        n_unstable = 0
        for number, (members, _) in enumerate(self.starts.pieces()):
            starts = [self.starts.structures[index] for index in members]
            walks, uncertainties = from_arrays(self._store.read(numbered(number)), starts)
            frames += walks.frames(starts)
            owners += [members[owner] for owner in walks.owners]
            uncertainties_by_piece.append(uncertainties)
            n_unstable += len(walks.unstable)
        if not frames:
            raise ValueError(
                f"all {n_unstable} trajectories became unstable at once: the student cannot run "
                "dynamics yet; train it longer, or lower --temperatures."
            )
        all_uncertainties = Uncertainties.joined(uncertainties_by_piece)
        n_random = self.settings.n_random
        doubtful, random = select(
            frames, owners, all_uncertainties, n_doubtful=self.settings.frames - n_random,
            n_random=n_random, rng=np.random.default_rng(self.settings.seed),
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
            "astray": n_unstable,
            "frames": len(frames),
            "outside": int((all_uncertainties.outside > 0).sum()),
        }


def _training_ranges(student: Student, paths: Sequence[Path]) -> TrainingRanges:
    """Return the training ranges of a student; without them in its metadata, those of the data."""
    if "seen" in student.metadata:
        return TrainingRanges.from_dict(student.metadata["seen"])
    split, seed = split_settings(student.metadata) or ("molecule", None)
    return ranges_of_files(paths, student.cutoff, seed, split=split)
