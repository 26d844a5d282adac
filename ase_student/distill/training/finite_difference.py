"""Gradients of the training loss without derivatives of derivatives.

The loss reads forces, so its gradient by the weights θ reads second derivatives of the energy. Of
those only one direction is needed. With λ the gradient of the loss by the forces:

    Σ_i λ_i · dF_i/dθ = −d/dθ [λ · ∇E(x)] ≈ −[dE(x + hλ)/dθ − dE(x)/dθ] / h.

The backward pass that gives the forces also gives dE(x)/dθ; a second pass at displaced atoms gives
dE(x + hλ)/dθ. The same holds for the stress, with a strain instead of the displacement. The error
is of first order in h and changes its sign with h: if the sign alternates from step to step, an
error of second order remains on average.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_student.distill.training.energy_differences import difference_terms
from ase_student.distill.training.pair_batches import PairBatch
from ase_student.distill.training.settings import TrainingSettings
from ase_student.networks.kernels import CompiledNetwork, PairResults, PairStructures

#: Largest displacement of an atom in Å, and largest component of a strain. The differences can
#: still be resolved in float32; a test checks how well.
STEP = 0.002


class LossGradients(NamedTuple):
    """The loss of a batch and its derivatives by the predictions of a network.

    Attributes
    ----------
    value : float
    by_energies : (n_atoms,) float64, 1/eV
        Derivatives by the energies of single atoms.
    by_forces : (n_atoms, 3) float64, Å/eV
    by_strains : (n_structures, 3, 3) float64, 1/eV, or None
        Derivatives by the virials, that is, by the derivatives of the energies by a strain (stress
        times volume).
    """

    value: float
    by_energies: NDArray[np.float64]
    by_forces: NDArray[np.float64]
    by_strains: NDArray[np.float64] | None


def differentiated_loss(
    results: PairResults, batch: PairBatch, settings: TrainingSettings, *, energy_weight: float
) -> LossGradients:
    """Return :func:`ase_student.distill.training.loss.loss` and its analytic derivatives.

    Parameters
    ----------
    results : PairResults
        With forces, and with virials if the batch has stress.
    batch : PairBatch
    settings : TrainingSettings
    energy_weight : float
    """
    assert results.forces is not None
    sizes = batch.sizes
    errors = (results.forces - batch.forces) / settings.force_scale
    value, factors = _rounded((errors * errors).sum(1))
    by_forces = errors * (factors / settings.force_scale)[:, None]
    scales = settings.energy_scale * np.sqrt(sizes)
    differences = batch.totals(results.energies) - batch.energies
    errors = differences / scales
    term, factors = _rounded(errors * errors)
    value += energy_weight * term
    by_totals = energy_weight * factors * errors / scales
    for weight, scale, coefficients in difference_terms(
        settings, batch.interactions, batch.conformers
    ):
        term, by_differences = _difference_term(differences, coefficients, scale)
        value += weight * term
        by_totals = by_totals + weight * by_differences
    by_energies = batch.of_atoms(by_totals)
    by_strains = None
    if settings.stress_weight and batch.stress is not None:
        term, by_strains = _stress_term(results, batch, settings)
        value += settings.stress_weight * term
    if settings.atomic_energy_weight and batch.atomic_energies is not None:
        term, by_atoms = _atomic_term(results.energies, batch, settings)
        value += settings.atomic_energy_weight * term
        by_energies = by_energies + settings.atomic_energy_weight * by_atoms
    return LossGradients(value, by_energies, by_forces, by_strains)


def _rounded(squares: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the mean pseudo-Huber loss of squared errors x², and its derivative by x, over x."""
    roots = np.sqrt(1.0 + squares)
    return float(roots.mean() - 1.0), 1.0 / (roots * len(roots))


def _difference_term(
    differences: NDArray[np.float64], coefficients: NDArray[np.float64], scale: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the loss of differences of energies, per structure, and its derivative by energies.

    Parameters
    ----------
    differences : (n_structures,) float64, eV
        Errors of the energies.
    coefficients : (n_compared, n_structures) float64
        Coefficients of the compared energies of complexes or conformers.
    scale : float, eV
    """
    errors = coefficients @ differences / scale
    # `_rounded` gives a mean over the compared energies; the loss is their sum over the number of
    # structures.
    term, factors = _rounded(errors * errors)
    share = len(errors) / len(differences)
    by_differences = (factors * errors) @ coefficients / scale
    return share * term, share * by_differences


def _stress_term(
    results: PairResults, batch: PairBatch, settings: TrainingSettings
) -> tuple[float, NDArray[np.float64]]:
    """Return the unweighted loss of the stress, and the weighted derivative by strains."""
    assert results.virials is not None
    assert batch.stress is not None
    volumes = batch.volumes[:, None, None]
    virials = batch.totals(results.virials)
    stress = 0.5 * (virials + virials.transpose(0, 2, 1)) / volumes
    errors = (stress - batch.stress) / settings.stress_scale
    is_known = ~np.isnan(errors).any(axis=(1, 2))
    term, factors = _rounded((errors[is_known] ** 2).sum((1, 2)))
    by_strains = np.zeros_like(errors)
    by_strains[is_known] = factors[:, None, None] * errors[is_known]
    return term, by_strains * (settings.stress_weight / settings.stress_scale) / volumes


def _atomic_term(
    energies: NDArray[np.float64], batch: PairBatch, settings: TrainingSettings
) -> tuple[float, NDArray[np.float64]]:
    """Return the loss of atomic energies, without the mean error of each structure."""
    assert batch.atomic_energies is not None
    errors = energies - batch.atomic_energies
    errors = (errors - _mean(errors, batch)) / settings.atomic_energy_scale
    is_known = ~np.isnan(errors)
    by_energies = np.zeros_like(errors)
    if not is_known.any():
        return 0.0, by_energies
    term, factors = _rounded(errors[is_known] ** 2)
    by_energies[is_known] = factors * errors[is_known] / settings.atomic_energy_scale
    return term, by_energies - _mean(by_energies, batch)


def _mean(values: NDArray[np.float64], batch: PairBatch) -> NDArray[np.float64]:
    """Return for every atom the mean over its structure."""
    return batch.of_atoms(batch.totals(values) / batch.sizes)


def backward_by_displacement(
    network: CompiledNetwork,
    batch: PairBatch,
    settings: TrainingSettings,
    *,
    energy_weight: float,
    sign: float = 1.0,
) -> float:
    """Return the loss of a batch, and add its gradient to the gradients of the weights.

    Parameters
    ----------
    network : CompiledNetwork
        Its weights are read again first.
    batch : PairBatch
    settings : TrainingSettings
    energy_weight : float
        See :func:`ase_student.distill.training.loss.loss`.
    sign : 1.0 or -1.0
        Sign of the displacement.
    """
    network.read_weights()
    has_stress = bool(settings.stress_weight) and batch.stress is not None
    at_rest = network.evaluate(batch.structures, with_virials=has_stress, with_gradient=True)
    loss = differentiated_loss(at_rest, batch, settings, energy_weight=energy_weight)
    largest = float(np.abs(loss.by_forces).max())
    if loss.by_strains is not None:
        largest = max(largest, float(np.abs(loss.by_strains).max()))
    step = sign * STEP / max(largest, 1e-30)
    structures = _displaced(batch, -step * loss.by_forces, loss.by_strains, step)
    displaced = network.evaluate(
        structures,
        seeds=loss.by_energies + 1.0 / step,
        with_forces=False,
        with_gradient=True,
    )
    assert displaced.gradient is not None
    assert at_rest.gradient is not None
    total = displaced.gradient.sub_(at_rest.gradient, alpha=1.0 / step)
    for weight, gradient in zip(network.weights, network.split(total), strict=True):
        if weight.grad is None:
            weight.grad = gradient
        else:
            weight.grad.add_(gradient)
    return loss.value


def _displaced(
    batch: PairBatch,
    displacements: NDArray[np.float64],
    strains: NDArray[np.float64] | None,
    factor: float,
) -> PairStructures:
    """Return the structures after strains, times a factor, and displacements of the atoms."""
    structures = batch.structures
    positions, pairs = structures.positions, structures.pairs
    if strains is not None:
        # Symmetric, as the stress is.
        strains = factor * strains
        positions = positions + (positions[:, None] @ batch.of_atoms(strains))[:, 0]
        if pairs.shifts is not None:
            of_pairs = np.repeat(strains, np.diff(structures.pair_splits), axis=0)
            shifts = pairs.shifts + (pairs.shifts[:, None] @ of_pairs)[:, 0]
            pairs = pairs._replace(shifts=shifts)
    return dataclasses.replace(structures, positions=positions + displacements, pairs=pairs)
