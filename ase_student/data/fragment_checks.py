"""Check that complexes in a data set consist of the fragments of their group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: By how much a distance between two atoms may differ in a complex and in its fragment, Å.
SAME_DISTANCE = 1e-3


def check_fragments(file: Any, name: str, splits: NDArray[np.int64]) -> None:
    """Check the column ``structures/fragments`` of an open HDF5 file.

    Fragments may be missing, for example where a subset was taken; those that are there must agree
    with every complex of their group, in elements and in geometry.

    Parameters
    ----------
    file : h5py.File
    name : str
        Name of the file in messages.
    splits : (n + 1,) int64
        Where the atoms of each structure begin.

    Raises
    ------
    ValueError
        If they do not agree, or a fragment is there twice; the message names the structure.
    """
    path = f"{name}: structures/fragments"
    groups, fragments = file["structures/fragments"][:].astype(np.int64).T
    bad = np.flatnonzero((groups < -1) | (fragments < -1) | ((groups < 0) & (fragments >= 0)))
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"{path}[{i}] is ({groups[i]}, {fragments[i]}); it must be (-1, -1), or the number of "
            "a group from 0 and that of a fragment from 0, or -1 for a complex."
        )
    members: dict[int, dict[int, int]] = {}
    for i in np.flatnonzero(fragments >= 0).tolist():
        of_group = members.setdefault(int(groups[i]), {})
        if int(fragments[i]) in of_group:
            raise ValueError(
                f"{path}[{i}] is fragment {fragments[i]} of group {groups[i]}, and so is structure "
                f"{of_group[int(fragments[i])]}."
            )
        of_group[int(fragments[i])] = i
    if not members:
        return
    numbers, positions = file["structures/atomic_numbers"][:], file["structures/positions"][:]
    for i in np.flatnonzero((groups >= 0) & (fragments < 0)).tolist():
        of_group = members.get(int(groups[i]), {})
        end = splits[i]
        for k in range(len(of_group)):
            if k not in of_group:
                # Where the next ones begin in the complex is not known without this one.
                break
            j = of_group[k]
            own, end = slice(end, end + splits[j + 1] - splits[j]), end + splits[j + 1] - splits[j]
            other = slice(splits[j], splits[j + 1])
            if (
                end > splits[i + 1]
                or not np.array_equal(numbers[own], numbers[other])
                or not _same_geometry(positions[own], positions[other])
            ):
                raise ValueError(
                    f"{path}[{i}] is a complex of group {groups[i]}, but its atoms are not those "
                    f"of fragment {k} (structure {j}) in the same order and geometry."
                )


def _same_geometry(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    distances = (np.linalg.norm(part[:, None] - part, axis=-1) for part in (one, other))
    return bool(np.abs(np.subtract(*distances)).max() < SAME_DISTANCE)
