"""Differences of energies: complexes and their fragments, and conformers of a molecule.

Samples whose energies are compared are kept together in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ase_student.data.sources import TORSION
from ase_student.distill.training.settings import TrainingSettings

Array = TypeVar("Array")

#: Number of structures of a torsion scan whose energies are compared in one batch.
CONFORMERS = 4


class GroupMember(Protocol):
    """A structure that may belong to a group whose energies are compared."""

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
        """Name of its group of conformers; None for a structure of no such group."""


def units_of(samples: Sequence[GroupMember]) -> list[list[int]]:
    """Return the indices of samples in units: a whole group, or one structure of no group.

    Units are in the order of their first samples. If samples are repeated, each copy of a group is
    a unit of its own.
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
    """Return the matrix that gives interaction energies of complexes from energies of samples.

    The interaction energy is that of the complex minus those of its fragments, all of which must be
    among the samples; complexes with a missing fragment are left out.

    Parameters
    ----------
    samples : sequence of Sample

    Returns
    -------
    (n_complexes, n_samples) float64, or None
        Coefficients: 1 for the complex and -1 for its fragments; None if there is no complex.
    """
    fragments: dict[str, dict[int, int]] = defaultdict(dict)
    for index, sample in enumerate(samples):
        if sample.group is not None and sample.fragment >= 0:
            fragments[sample.group][sample.fragment] = index
    rows = []
    for index, sample in enumerate(samples):
        if sample.group is None or sample.fragment >= 0:
            continue
        indices = list(fragments[sample.group].values())
        if indices and sum(len(samples[i].numbers) for i in indices) == len(sample.numbers):
            row = np.zeros(len(samples))
            row[index], row[indices] = 1.0, -1.0
            rows.append(row)
    return np.array(rows) if rows else None


def conformer_coefficients(samples: Sequence[GroupMember]) -> NDArray[np.float64] | None:
    """Return the matrix that gives relative energies of conformers from energies of samples.

    The relative energy is the energy of a conformer minus the mean energy of its group. With a
    single conformer as the reference, such as the lowest, its error would count in all others.

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

    Consecutive structures of torsion scans of the same molecule are one scan. A scan is divided
    into groups of about `size` structures, whose angles cover the whole circle, so that a batch
    holds several molecules.

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


def difference_terms(
    settings: TrainingSettings, interactions: Array | None, conformers: Array | None
) -> list[tuple[float, float, Array]]:
    """Return the terms of the loss that compare energies: weight, scale in eV, and coefficients.

    Parameters
    ----------
    settings : TrainingSettings
    interactions, conformers : array or None
        Coefficients of a batch, see :func:`interaction_coefficients` and
        :func:`conformer_coefficients`. Terms without coefficients or with a weight of 0 are left
        out.
    """
    terms = (
        (settings.interaction_weight, settings.interaction_scale, interactions),
        (settings.conformer_weight, settings.conformer_scale, conformers),
    )
    return [
        (weight, scale, coefficients)
        for weight, scale, coefficients in terms
        if weight and coefficients is not None
    ]
