"""Errors of a student against the labels of a file, each with its interval."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.data.readers.label_keys import LOOKED_FOR
from ase_student.validation.accuracy import sums
from ase_student.validation.accuracy.bootstrap import N_DRAWS, draws, estimate
from ase_student.validation.accuracy.chunks import N_WORST_ATOMS, PassChunk

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Share of the variance of the teacher's forces that a student is expected to explain.
VARIANCE_TARGET = 0.95
#: This many of the most frequent sources are listed; all others are counted together.
N_SOURCES = 30
OTHERS = "others"
#: Number of structures with the largest errors that are written out.
N_WORST = 20


@dataclass
class Pass:
    """All pieces of a pass: a row per structure, sums, histograms.

    Attributes
    ----------
    rows : list of PassChunk
        The pieces without their sums over groups of atoms, which the other attributes add up.
    """

    rows: list[PassChunk] = field(default_factory=list)
    elements: Any = 0.0
    magnitudes: Any = 0.0
    parity: Any = 0
    errors: Any = 0
    worst_atoms: list[Floats] = field(default_factory=list)
    seconds: float = 0.0
    left_out: list[tuple[int, str, bool]] = field(default_factory=list)

    @classmethod
    def of(cls, pieces: Iterable[PassChunk]) -> Pass:
        """Return the pass that consists of the given pieces, which are read one after the other."""
        results = cls()
        for piece in pieces:
            results.elements = results.elements + piece.elements
            results.magnitudes = results.magnitudes + piece.magnitudes
            results.parity = results.parity + piece.parity
            results.errors = results.errors + piece.errors
            results.worst_atoms.append(piece.worst_atoms)
            results.seconds += float(piece.seconds[0])
            results.left_out.extend(
                (int(index), str(reason), bool(invalid))
                for (index, invalid), reason in zip(piece.left_out, piece.reasons, strict=True)
            )
            empty = np.zeros((0, 0, 0))
            results.rows.append(
                PassChunk(**{**piece.__dict__, "elements": empty, "magnitudes": empty})
            )
        return results

    def column(self, name: str) -> Any:
        """Return a column of all structures."""
        return np.concatenate([getattr(piece, name) for piece in self.rows])

    def weighted(self, columns: Callable[[PassChunk], Floats], seed: int) -> Floats:
        """Return sums over structures, for every draw of the bootstrap.

        Parameters
        ----------
        columns : callable
            Takes a piece and returns the values to sum, (n, ...) float64.
        seed : int

        Returns
        -------
        (1 + N_DRAWS, ...) float64
        """
        total: Any = 0.0
        for number, piece in enumerate(self.rows):
            weights = draws(seed, number, len(piece.indices))
            total = total + np.tensordot(weights, columns(piece), axes=1)
        return np.asarray(total)

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all structures that were used."""
        return int(sum(piece.sizes.sum() for piece in self.rows))


def _why_nothing_is_left(results: Pass) -> str:
    """Return why no structure can be compared: the number of each kind, and its first reason."""
    first: dict[bool, str] = {}
    counts: Counter[bool] = Counter()
    for _, reason, invalid in results.left_out:
        counts[invalid] += 1
        first.setdefault(invalid, reason)
    message = "no structure is left to compare with"
    if counts[False]:
        message += (
            f": {counts[False]} have no labels (looked for {LOOKED_FOR}; --energy-key and "
            f"--forces-key give others), the first: {first[False]}"
        )
    if counts[True]:
        message += (
            f"{';' if counts[False] else ':'} {counts[True]} are invalid, the first: {first[True]}"
        )
    return message if message.endswith(".") else f"{message}."


def metrics(results: Pass, seed: int) -> dict[str, Any]:
    """Return every error of a pass, under the names that ``metrics.json`` uses."""
    if not any(len(piece.indices) for piece in results.rows):
        raise ValueError(_why_nothing_is_left(results))
    forces = results.weighted(lambda piece: piece.forces, seed)
    errors: dict[str, Any] = {
        "n_structures": int(sum(len(piece.indices) for piece in results.rows)),
        "n_atoms": results.n_atoms,
        "energy": _energy(results, seed),
        "forces": None,
        "stress": _stress(results, seed),
    }
    if forces[0, 0] > 0:
        errors["forces"] = {
            **_forces(forces),
            "variance_target": VARIANCE_TARGET,
            "by_element": _by_element(results),
            "by_magnitude": _by_magnitude(results),
            "by_size": _by_size(results, seed),
            "by_source": _by_source(results, seed),
        }
    errors["worst_structures"] = _worst_structures(results)
    errors["worst_atoms"] = _worst_atoms(results)
    return errors


def _forces(totals: Floats) -> dict[str, Any]:
    """Return the errors of forces from their sums, (1 + N_DRAWS, n_columns)."""
    errors = {name: estimate(values) for name, values in sums.force_errors(totals).items()}
    return {"n_components": int(totals[0, 0]), **errors}


def _by_element(results: Pass) -> dict[str, Any]:
    present = np.flatnonzero(results.elements[0, :, 0])
    return {sums.symbol(int(z)): _forces(results.elements[:, z]) for z in present}


def _by_magnitude(results: Pass) -> dict[str, Any]:
    present = np.flatnonzero(results.magnitudes[0, :, 0])
    return {
        sums.label_of(sums.MAGNITUDES, int(group), "eV/Å"): _forces(results.magnitudes[:, group])
        for group in present
    }


def _by_size(results: Pass, seed: int) -> dict[str, Any]:
    groups = np.arange(len(sums.SIZES))

    def columns(piece: PassChunk) -> Floats:
        member = sums.group_of(piece.sizes, sums.SIZES)[:, None] == groups
        return np.asarray(member[:, :, None] * piece.forces[:, None])

    totals = results.weighted(columns, seed)
    return {
        sums.label_of(sums.SIZES, int(group), "atoms"): _forces(totals[:, group])
        for group in np.flatnonzero(totals[0, :, 0])
    }


def _by_source(results: Pass, seed: int) -> dict[str, Any]:
    shown = _sources(results)

    def columns(piece: PassChunk) -> Floats:
        member = piece.sources[:, None] == np.array(shown)
        member = np.concatenate([member, ~member.any(axis=1, keepdims=True)], axis=1)
        return np.asarray(member[:, :, None] * piece.forces[:, None])

    totals = results.weighted(columns, seed)
    named = zip([*shown, OTHERS], np.moveaxis(totals, 1, 0), strict=True)
    return {name: _forces(total) for name, total in named if total[0, 0] > 0}


def _energy(results: Pass, seed: int) -> dict[str, Any] | None:
    """Return the errors of energies, as they are and after a shift per element."""
    counts = results.column("counts")
    present = np.flatnonzero(counts.any(axis=0))

    def equations(piece: PassChunk) -> Floats:
        rows, errors = _energy_rows(piece, present)
        columns = np.concatenate([rows, errors[:, None]], axis=1)
        return np.asarray(columns[:, :, None] * columns[:, None])

    normal = results.weighted(equations, seed)
    if not (np.isfinite(results.column("energies")[:, 0])).any():
        return None
    # Least squares from the normal equations; elements that always come together share a shift.
    shifts = np.stack(
        [
            np.linalg.pinv(equation[:-1, :-1], hermitian=True) @ equation[:-1, -1]
            for equation in normal
        ]
    )
    no_shifts = np.zeros_like(shifts)
    sources, sizes = _sources(results), range(len(sums.SIZES))
    groups = {
        "by_source": {name: functools.partial(_is_of_source, name=name) for name in sources},
        "by_size": {
            sums.label_of(sums.SIZES, group, "atoms"): functools.partial(_is_of_size, group=group)
            for group in sizes
        },
    }
    return {
        "n": int(np.isfinite(results.column("energies")[:, 0]).sum()),
        "raw": _energy_errors(results, present, no_shifts, seed),
        "shifted": _energy_errors(results, present, shifts, seed),
        **{
            key: {
                name: _energy_errors(results, present, shifts, seed, member)
                for name, member in members.items()
                if any(member(piece).any() for piece in results.rows)
            }
            for key, members in groups.items()
        },
        "shifts": {sums.symbol(int(z)): float(s) for z, s in zip(present, shifts[0], strict=True)},
    }


def _energy_rows(piece: PassChunk, present: Integers) -> tuple[Floats, Floats]:
    """Return composition and energy error of each structure; zero where there is no label."""
    errors = piece.energies[:, 1] - piece.energies[:, 0]
    has_energy = np.isfinite(errors)
    return piece.counts[:, present] * has_energy[:, None].astype(float), np.where(
        has_energy, errors, 0.0
    )


def _sources(results: Pass) -> list[str]:
    """Return the names of the most frequent sources."""
    names, counts = np.unique(results.column("sources"), return_counts=True)
    common = names[np.argsort(-counts, kind="stable")][:N_SOURCES]
    return [str(name) for name in sorted(common)]


def _is_of_source(piece: PassChunk, name: str) -> NDArray[np.bool_]:
    return np.asarray(piece.sources == name)


def _is_of_size(piece: PassChunk, group: int) -> NDArray[np.bool_]:
    return np.asarray(sums.group_of(piece.sizes, sums.SIZES) == group)


def _energy_errors(
    results: Pass,
    present: Integers,
    shifts: Floats,
    seed: int,
    member: Callable[[PassChunk], NDArray[np.bool_]] | None = None,
) -> dict[str, Any]:
    """Return the errors of energies after subtracting the shifts per element of each draw.

    Parameters
    ----------
    results : Pass
    present : (n_elements,) int64
        Atomic numbers of the elements.
    shifts : (1 + N_DRAWS, n_elements) float64, eV
    seed : int
    member : callable, optional
        Takes a piece and returns which of its structures count; by default all.
    """
    totals = np.zeros((1 + N_DRAWS, 5))
    for number, piece in enumerate(results.rows):
        rows, errors = _energy_rows(piece, present)
        has_energy = np.isfinite(piece.energies[:, 0]).astype(float)
        if member is not None:
            has_energy = has_energy * member(piece)
        residuals = errors - shifts @ rows.T
        per_atom = residuals / piece.sizes
        weights = draws(seed, number, len(piece.indices)) * has_energy
        columns = (
            np.ones_like(residuals),
            abs(residuals),
            residuals**2,
            abs(per_atom),
            per_atom**2,
        )
        totals += np.stack([(weights * column).sum(axis=1) for column in columns], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = totals[:, 1:] / totals[:, :1]
    return {
        "mae": estimate(means[:, 0]),
        "rmse": estimate(np.sqrt(means[:, 1])),
        "mae_per_atom": estimate(means[:, 2]),
        "rmse_per_atom": estimate(np.sqrt(means[:, 3])),
    }


def _stress(results: Pass, seed: int) -> dict[str, Any] | None:
    totals = results.weighted(lambda piece: piece.stress, seed)
    if not totals[0, 0]:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        mae, mean_square = totals[:, 1] / totals[:, 0], totals[:, 2] / totals[:, 0]
    return {
        "n_structures": int(totals[0, 0]) // 6,
        "mae": estimate(mae),
        "rmse": estimate(np.sqrt(mean_square)),
    }


def _worst_structures(results: Pass) -> list[dict[str, Any]]:
    """Return the structures with the largest force errors, the worst first."""
    forces = sums.force_errors(results.column("forces"))["rmse"]
    indices, sizes = results.column("indices"), results.column("sizes")
    sources, energies = results.column("sources"), results.column("energies")
    order = np.argsort(-np.nan_to_num(forces, nan=-1.0), kind="stable")[:N_WORST]
    deviations = (energies[:, 1] - energies[:, 0]) / sizes
    return [
        {
            "index": int(indices[row]),
            "n_atoms": int(sizes[row]),
            "source": str(sources[row]),
            "force_rmse": float(forces[row]),
            "energy_error_per_atom": _number(deviations[row]),
        }
        for row in order
        if np.isfinite(forces[row])
    ]


def _worst_atoms(results: Pass) -> list[dict[str, Any]]:
    atoms = np.concatenate([np.zeros((0, 3)), *results.worst_atoms])
    order = np.argsort(-atoms[:, 2], kind="stable")[:N_WORST_ATOMS]
    return [
        {"index": int(index), "atom": int(atom), "force_error": float(error)}
        for index, atom, error in atoms[order]
    ]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
