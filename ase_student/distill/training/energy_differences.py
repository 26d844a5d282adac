"""Differences of energies: complexes and their fragments, and conformers of a molecule.

Samples whose energies are compared are kept together in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ase_student.data.sources import TORSION

#: Structures of a torsion scan whose energies are compared in one batch.
CONFORMERS = 4


class GroupMember(Protocol):
    """What is known of a structure that may belong to a group whose energies are compared."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers, (n_atoms,)."""

    @property
    def group(self) -> str | None:
        """Name of the group; None for a structure of no group."""

    @property
    def fragment(self) -> int:
        """Which fragment of its group it is; -1 for a complex and for a structure of no group."""

    @property
    def conformers(self) -> str | None:
        """Name of its group of conformers; None for a structure of none."""


def units_of(samples: Sequence[GroupMember]) -> list[list[int]]:
    """Return the indices of samples in units: a whole group, or one structure of no group.

    Units are in the order of their first samples. Of samples that are there several times, each
    copy of a group is a unit.
    """
    units: dict[tuple[str | int, int], list[int]] = {}
    copies: dict[int, int] = defaultdict(int)
    for index, sample in enumerate(samples):
        name = sample.group or sample.conformers
        if name is None:
            units[index, 0] = [index]
            continue
        units.setdefault((name, copies[id(sample)]), []).append(index)
        copies[id(sample)] += 1
    return list(units.values())


def interaction_coefficients(samples: Sequence[GroupMember]) -> NDArray[np.float64] | None:
    """Return how the interaction energies of complexes follow from the energies of samples.

    The interaction energy is that of the complex minus those of its fragments, all of which must be
    among the samples; complexes that lack one are left out.

    Parameters
    ----------
    samples : sequence of Sample

    Returns
    -------
    (n_complexes, n_samples) float64, or None
        1 for the complex and -1 for its fragments; None if there is no complex.
    """
    fragments: dict[str, dict[int, int]] = defaultdict(dict)
    for index, sample in enumerate(samples):
        if sample.group is not None and sample.fragment >= 0:
            fragments[sample.group][sample.fragment] = index
    rows = []
    for index, sample in enumerate(samples):
        if sample.group is None or sample.fragment >= 0:
            continue
        own = list(fragments[sample.group].values())
        if own and sum(len(samples[i].numbers) for i in own) == len(sample.numbers):
            row = np.zeros(len(samples))
            row[index], row[own] = 1.0, -1.0
            rows.append(row)
    return np.array(rows) if rows else None


def conformer_coefficients(samples: Sequence[GroupMember]) -> NDArray[np.float64] | None:
    """Return how the relative energies of conformers follow from the energies of samples.

    The relative energy is that of a conformer minus the mean of its group's. A difference to one of
    them, such as the lowest, would count the error of that one in all others.

    Parameters
    ----------
    samples : sequence of Sample

    Returns
    -------
    (n_conformers, n_samples) float64, or None
        None if no two samples are conformers of one group.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.conformers is not None:
            groups[sample.conformers].append(index)
    rows = []
    for members in groups.values():
        if len(members) > 1:
            block = np.zeros((len(members), len(samples)))
            block[:, members] = np.eye(len(members)) - 1.0 / len(members)
            rows.append(block)
    return np.concatenate(rows) if rows else None


def conformer_groups(
    sources: Sequence[str], molecules: Sequence[str], size: int = CONFORMERS
) -> list[int]:
    """Return the number of the group of conformers that each structure of a file belongs to.

    Structures of torsion scans belong together where they follow each other and are of the same
    molecule. A scan is divided into groups of about `size` angles around the whole circle, so that
    a batch holds several molecules.

    Parameters
    ----------
    sources : sequence of str
        How each structure was sampled.
    molecules : sequence of str
    size : int

    Returns
    -------
    list of int
        -1 for structures of other sources.
    """
    groups = [-1] * len(sources)
    first = number = 0
    for (source, _), run in groupby(zip(sources, molecules, strict=True)):
        length = len(list(run))
        if source == TORSION:
            n_groups = -(-length // size)
            for index in range(length):
                groups[first + index] = number + index % n_groups
            number += n_groups
        first += length
    return groups
