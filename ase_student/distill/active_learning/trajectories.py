"""A student's own dynamics, watched: frames until it ends or goes astray."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.distill.active_learning.uncertainty import Uncertainties
from ase_student.dynamics.bonds import is_sane
from ase_student.dynamics.trajectories import trajectories
from ase_student.potentials.base import Potential

#: Steps between looks at whether a trajectory is still sane.
WATCHED = 5
#: Frames that are kept of the last looks at one that went astray.
LAST_FRAMES = 3


@dataclass(frozen=True)
class Trajectories:
    """Frames of some trajectories.

    Attributes
    ----------
    positions : list of (n_atoms, 3) float64, Å
    owners : (n_frames,) int64
        The trajectory that each frame is of.
    astray : (n_astray,) int64
        Trajectories that went astray.
    """

    positions: list[NDArray[np.float64]]
    owners: NDArray[np.int64]
    astray: NDArray[np.int64]

    def frames(self, starts: Sequence[Atoms]) -> list[Atoms]:
        """Return the frames as structures.

        Parameters
        ----------
        starts : sequence of Atoms
            Where the trajectories began.
        """
        frames = []
        for owner, positions in zip(self.owners, self.positions, strict=True):
            frame = starts[owner].copy()
            frame.positions = positions
            frames.append(frame)
        return frames


def run_trajectories(
    starts: Sequence[Atoms],
    driver: Potential,
    temperatures: Sequence[float],
    *,
    n_steps: int,
    every: int,
    rng: np.random.Generator,
    confined: bool = False,
) -> Trajectories:
    """Run dynamics from some structures and keep frames of it.

    A trajectory goes astray where atoms come closer than any two do, where a molecule loses a bond,
    or where there are no forces. It ends there; its last sane frames are kept, a few steps apart,
    because nothing is better to learn from.

    Parameters
    ----------
    starts : sequence of Atoms
    driver : Potential
    temperatures : sequence of float, K
        One per structure.
    n_steps : int
    every : int
        Steps between frames; a multiple of `WATCHED`.
    rng : numpy.random.Generator
    confined : bool
        Whether a soft wall keeps the parts of a cluster together.
    """
    positions: list[NDArray[np.float64]] = []
    owners: list[int] = []
    astray: list[int] = []
    latest = [deque[NDArray[np.float64]](maxlen=LAST_FRAMES) for _ in starts]
    looks = trajectories(starts, driver, temperatures, n_steps=WATCHED, rng=rng, confined=confined)
    for step in range(WATCHED, n_steps + 1, WATCHED):
        structures = next(looks)
        for index in sorted(set(range(len(starts))) - set(astray)):
            if not is_sane(starts[index], structures[index]):
                astray.append(index)
            elif step % every:
                latest[index].append(structures[index].positions)
                continue
            else:
                latest[index] = deque([structures[index].positions], LAST_FRAMES)
            positions += latest[index]
            owners += [index] * len(latest[index])
            latest[index].clear()
        if len(astray) == len(starts):
            break
    return Trajectories(positions, np.array(owners, np.int64), np.array(astray, np.int64))


def arrays_of(walks: Trajectories, uncertainties: Uncertainties) -> dict[str, NDArray[Any]]:
    """Return frames and their uncertainties as arrays, as a store of chunks keeps them."""
    return {
        "positions": np.concatenate([np.zeros((0, 3)), *walks.positions]),
        "owners": walks.owners,
        "astray": walks.astray,
        "outside": uncertainties.outside,
        "values": uncertainties.values,
    }


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], starts: Sequence[Atoms]
) -> tuple[Trajectories, Uncertainties]:
    """Return what `arrays_of` returned as arrays, for trajectories from these structures."""
    owners = arrays["owners"]
    ends = np.cumsum([len(starts[owner]) for owner in owners])
    positions = np.split(arrays["positions"], ends[:-1]) if len(owners) else []
    walks = Trajectories(positions, owners, arrays["astray"])
    return walks, Uncertainties(arrays["outside"], arrays["values"])
