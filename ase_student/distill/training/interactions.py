"""Interaction energies: complexes and their fragments among samples, kept together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class GroupMember(Protocol):
    """What is known of a structure that may belong to a group of complexes and fragments."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Atomic numbers, (n_atoms,)."""

    @property
    def group(self) -> str | None:
        """Name of the group; None for a structure of no group."""

    @property
    def fragment(self) -> int:
        """Which fragment of its group it is; -1 for a complex and for a structure of no group."""


def units_of(samples: Sequence[GroupMember]) -> list[list[int]]:
    """Return the indices of samples in units: a whole group, or one structure of no group.

    Units are in the order of their first samples. Of samples that are there several times, each
    copy of a group is a unit.
    """
    units: dict[tuple[str | int, int], list[int]] = {}
    copies: dict[int, int] = defaultdict(int)
    for index, sample in enumerate(samples):
        if sample.group is None:
            units[index, 0] = [index]
            continue
        units.setdefault((sample.group, copies[id(sample)]), []).append(index)
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
