"""Sums over atoms from which every error of forces follows.

Errors of any set of atoms are functions of a few sums over them. Sums of pieces of a file add up,
so a pass needs no more memory for a large file than for a small one, can be interrupted, and can be
shared between machines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Force components this close to the teacher's count as reproduced, eV/Å.
CLOSE = 0.05
#: What is summed over atoms, in this order: number of components, their absolute and squared
#: errors, the teacher's components and their squares, number of components that are close, number
#: of atoms whose forces have a direction, angle between the two forces (degrees), norm of the
#: teacher's force, and the angle weighted by it.
COLUMNS = (
    "n", "absolute", "squares", "truth", "truth_squares", "close",
    "n_angles", "angles", "weights", "weighted_angles",
)  # fmt: skip
#: Forces below this have no direction, eV/Å.
SMALLEST_FORCE = 1e-3
#: Lower ends of the groups of atoms by the teacher's force, eV/Å.
MAGNITUDES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
#: Lower ends of the groups of structures by their number of atoms.
SIZES = (1, 10, 20, 50, 100, 500, 2000)


def of_atoms(truth: Floats, predicted: Floats) -> Floats:
    """Return the columns of each atom.

    Parameters
    ----------
    truth, predicted : (n_atoms, 3) float64, eV/Å
        Forces of the teacher and of the student.

    Returns
    -------
    (n_atoms, n_columns) float64
    """
    errors = np.abs(predicted - truth)
    norms = np.linalg.norm(truth, axis=1)
    norm_products = norms * np.linalg.norm(predicted, axis=1)
    directed = (norms > SMALLEST_FORCE) & (norm_products > 0.0)
    cosines = np.einsum("ij,ij->i", truth, predicted) / np.where(directed, norm_products, 1.0)
    angles = np.where(directed, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))), 0.0)
    weights = np.where(directed, norms, 0.0)
    return np.stack(
        [
            np.full(len(truth), 3.0),
            errors.sum(axis=1),
            (errors**2).sum(axis=1),
            truth.sum(axis=1),
            (truth**2).sum(axis=1),
            (errors <= CLOSE).sum(axis=1).astype(np.float64),
            directed.astype(np.float64),
            angles,
            weights,
            weights * angles,
        ],
        axis=1,
    )


def by_structure(atoms: Floats, sizes: NDArray[np.int64]) -> Floats:
    """Return the sums over the atoms of each structure, (n, n_columns)."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums: Floats = np.add.reduceat(atoms, starts, axis=0)
    return sums


def by_group(
    atoms: Floats,
    sizes: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    n_groups: int,
    weights: Floats,
) -> Floats:
    """Return the weighted sums over all atoms of each group.

    Parameters
    ----------
    atoms : (n_atoms, n_columns) float64
    sizes : (n,) int64
        Atoms in each structure.
    groups : (n_atoms,) int64
    n_groups : int
    weights : (n_weights, n) float64
        How much each structure counts in each of the sums.

    Returns
    -------
    (n_weights, n_groups, n_columns) float64
    """
    structures = np.repeat(np.arange(len(sizes)), sizes)
    cells = structures * n_groups + groups
    sums = np.stack(
        [np.bincount(cells, weights=column, minlength=len(sizes) * n_groups) for column in atoms.T],
        axis=1,
    )
    n_columns = atoms.shape[1]
    totals = weights @ sums.reshape(len(sizes), n_groups * n_columns)
    return totals.reshape(len(weights), n_groups, n_columns)


def force_errors(sums: Floats) -> dict[str, Floats]:
    """Return the errors that follow from sums, by name.

    Parameters
    ----------
    sums : (..., n_columns) float64

    Returns
    -------
    dict of str to (...) float64
        NaN where nothing was summed. ``r2`` is 1 minus the mean squared error of the components
        over their variance.
    """
    columns = dict(zip(COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
    n = columns["n"]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_square = columns["squares"] / n
        variance = columns["truth_squares"] / n - (columns["truth"] / n) ** 2
        return {
            "mae": columns["absolute"] / n,
            "rmse": np.sqrt(mean_square),
            "r2": np.where(variance > 0.0, 1.0 - mean_square / variance, np.nan),
            "sigma": np.sqrt(np.maximum(variance, 0.0)),
            "share_close": columns["close"] / n,
            "angle": columns["angles"] / columns["n_angles"],
            "angle_weighted": columns["weighted_angles"] / columns["weights"],
        }


def label_of(edges: tuple[float, ...], index: int, unit: str) -> str:
    """Return the name of a group between two edges.

    Examples
    --------
    >>> label_of(MAGNITUDES, 1, "eV/Å"), label_of(MAGNITUDES, 6, "eV/Å")
    ('0.5 to 1 eV/Å', '16 eV/Å and more')
    """
    if index + 1 == len(edges):
        return f"{edges[index]:g} {unit} and more"
    return f"{edges[index]:g} to {edges[index + 1]:g} {unit}"


def group_of(values: NDArray[np.floating] | NDArray[np.int64], edges: Any) -> NDArray[np.int64]:
    """Return the group that each value falls into."""
    groups: NDArray[np.int64] = np.searchsorted(np.asarray(edges), values, side="right") - 1
    return np.clip(groups, 0, len(edges) - 1)


def symbol(number: int) -> str:
    """Return the symbol of an element."""
    return chemical_symbols[number]
