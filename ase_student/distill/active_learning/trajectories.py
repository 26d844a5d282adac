"""Frames of a student's own dynamics, up to their end or to the first unphysical structure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.distill.active_learning.uncertainty import Uncertainties
from ase_student.dynamics.bonds import is_physical
from ase_student.dynamics.trajectories import trajectories
from ase_student.potentials.base import Potential

#: Steps between checks whether a trajectory is still physical.
CHECK_INTERVAL = 5
#: Number of frames that are kept from the last checks before a trajectory became unstable.
LAST_FRAMES = 3


@dataclass(frozen=True)
class Trajectories:
    """Frames of some trajectories.

    Attributes
    ----------
    positions : list of (n_atoms, 3) float64, Å
    owners : (n_frames,) int64
        The trajectory that each frame belongs to.
    unstable : (n_unstable,) int64
        Trajectories that became unstable.
    """

    positions: list[NDArray[np.float64]]
    owners: NDArray[np.int64]
    unstable: NDArray[np.int64]

    def frames(self, starts: Sequence[Atoms]) -> list[Atoms]:
        """Return the frames as structures.

        Parameters
        ----------
        starts : sequence of Atoms
            First structures of the trajectories.
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
    """Run dynamics from some structures and return frames of them.

    A trajectory is unstable if atoms clash, if a molecule loses a bond, or if there are no forces.
    It ends there; its last physical frames are kept, a few steps apart, because a student learns
    most from them.

    Parameters
    ----------
    starts : sequence of Atoms
    driver : Potential
    temperatures : sequence of float, K
        One per structure.
    n_steps : int
    every : int
        Steps between frames; a multiple of `CHECK_INTERVAL`.
    rng : numpy.random.Generator
    confined : bool
        Whether a soft wall keeps the parts of a cluster together.
    """
    positions: list[NDArray[np.float64]] = []
    owners: list[int] = []
    unstable: list[int] = []
    latest = [deque[NDArray[np.float64]](maxlen=LAST_FRAMES) for _ in starts]
    checked_structures = trajectories(
        starts, driver, temperatures, n_steps=CHECK_INTERVAL, rng=rng, confined=confined
    )
    for step in range(CHECK_INTERVAL, n_steps + 1, CHECK_INTERVAL):
        structures = next(checked_structures)
        for index in sorted(set(range(len(starts))) - set(unstable)):
            if not is_physical(starts[index], structures[index]):
                unstable.append(index)
            elif step % every:
                latest[index].append(structures[index].positions)
                continue
            else:
                latest[index] = deque([structures[index].positions], LAST_FRAMES)
            positions += latest[index]
            owners += [index] * len(latest[index])
            latest[index].clear()
        if len(unstable) == len(starts):
            break
    return Trajectories(positions, np.array(owners, np.int64), np.array(unstable, np.int64))


def arrays_of(walks: Trajectories, uncertainties: Uncertainties) -> dict[str, NDArray[Any]]:
    """Return frames and their uncertainties as arrays, for a store of chunks."""
    return {
        "positions": np.concatenate([np.zeros((0, 3)), *walks.positions]),
        "owners": walks.owners,
        "astray": walks.unstable,
        "outside": uncertainties.outside,
        "values": uncertainties.values,
    }


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], starts: Sequence[Atoms]
) -> tuple[Trajectories, Uncertainties]:
    """Return frames and uncertainties from the arrays that `arrays_of` returns."""
    owners = arrays["owners"]
    atom_splits = np.cumsum([len(starts[owner]) for owner in owners])
    positions = np.split(arrays["positions"], atom_splits[:-1]) if len(owners) else []
    walks = Trajectories(positions, owners, arrays["astray"])
    return walks, Uncertainties(arrays["outside"], arrays["values"])
