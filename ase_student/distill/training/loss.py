"""The training loss, and the predictions of a network by autograd that it compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ase_student.distill.training.batches import Batch
from ase_student.distill.training.energy_differences import difference_terms
from ase_student.distill.training.settings import TrainingSettings


class Predictions(NamedTuple):
    """Predictions of a network for a batch.

    Attributes
    ----------
    atomic_energies : (n_atoms,) float64, eV
    energies : (n_structures,) float64, eV
    forces : (n_atoms, 3) float32, eV/Å
    stress : (n_structures, 3, 3) float64, eV/Å³, or None
        None if no structure of the batch has a stress to compare with.
    """

    atomic_energies: Tensor
    energies: Tensor
    forces: Tensor
    stress: Tensor | None


def strained(batch: Batch, positions: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and offsets of a batch under a strain of each structure.

    Parameters
    ----------
    batch : Batch
    positions : (n_atoms, 3) float64, Å
    strain : (n_structures, 3, 3) float64
        Only its symmetric part is used.
    """
    offsets = batch.inputs[3]
    of_atoms = (0.5 * (strain + strain.transpose(1, 2)))[batch.structures]
    return positions + (positions[:, None] @ of_atoms)[:, 0], offsets + offsets @ of_atoms


def per_volume(batch: Batch, values: Tensor) -> Tensor:
    """Return ``(n_structures, 3, 3)`` values divided by the volumes of a batch's structures."""
    # Molecules in the batch have no volume; their gradients must be finite nevertheless.
    volumes = batch.volumes.where(batch.volumes > 0, 1.0)
    return values / volumes[:, None, None]


#: A function that returns the energies of atoms, (n_atoms,) float64 in eV, from the four inputs of
#: a potential.
Energies = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def predict(network: Energies, batch: Batch, create_graph: bool = False) -> Predictions:
    """Return energies, and forces and stress by autograd.

    The stress is the derivative of the energy by a symmetric strain of positions and cell, divided
    by the volume.
    """
    return predict_and_differentiate(network, batch, (), create_graph=create_graph)[0]


def predict_and_differentiate(
    network: Energies, batch: Batch, weights: Sequence[Tensor], *, create_graph: bool = False
) -> tuple[Predictions, tuple[Tensor | None, ...]]:
    """Return what :func:`predict` returns, and gradients of the sum of energies by some weights.

    The gradient of a weight that the energies don't depend on is None.
    """
    numbers, positions, neighbors, offsets = batch.inputs
    positions = positions.detach().requires_grad_()
    variables = [positions]
    moved, moved_offsets = positions, offsets
    if batch.stress is not None:
        strain = torch.zeros_like(batch.stress).requires_grad_()
        variables.append(strain)
        moved, moved_offsets = strained(batch, positions, strain)
    atomic_energies = network(numbers, moved, neighbors, moved_offsets)
    gradients = torch.autograd.grad(
        atomic_energies.sum(), [*variables, *weights], create_graph=create_graph, allow_unused=True
    )
    stress = None
    if batch.stress is not None:
        stress = per_volume(batch, gradients[1])
    predictions = Predictions(
        atomic_energies,
        batch.totals(atomic_energies),
        -gradients[0].to(torch.float32),
        stress,
    )
    return predictions, gradients[len(variables) :]


def loss(
    predictions: Predictions, batch: Batch, settings: TrainingSettings, *, energy_weight: float
) -> Tensor:
    """Return the training loss: every term is quadratic for small errors, linear for large ones.

    The weight of the energy term changes during training; it is an argument of its own.
    """
    squares = ((predictions.forces - batch.forces) ** 2).sum(1) / settings.force_scale**2
    total = _rounded(squares).mean()
    energy_scales = settings.energy_scale * torch.sqrt(batch.sizes)
    deviations = (predictions.energies - batch.energies) / energy_scales
    total = total + energy_weight * _rounded(deviations**2).mean().to(total.dtype)
    if settings.stress_weight and predictions.stress is not None and batch.stress is not None:
        errors = (predictions.stress - batch.stress) / settings.stress_scale
        # Structures without a stress hold NaN.
        is_known = ~torch.isnan(batch.stress).any(dim=2).any(dim=1)
        term = _rounded((errors[is_known] ** 2).sum((1, 2))).mean()
        total = total + settings.stress_weight * term.to(total.dtype)
    if settings.atomic_energy_weight and batch.atomic_energies is not None:
        total = total + settings.atomic_energy_weight * _atomic_term(predictions, batch, settings)
    for weight, scale, coefficients in difference_terms(
        settings, batch.interactions, batch.conformers
    ):
        term = _difference_term(predictions, batch, coefficients, scale)
        total = total + weight * term.to(total.dtype)
    return total


def _atomic_term(predictions: Predictions, batch: Batch, settings: TrainingSettings) -> Tensor:
    """Return the loss of atomic energies, without the mean error of each structure."""
    assert batch.atomic_energies is not None
    errors = predictions.atomic_energies - batch.atomic_energies
    errors = errors - (batch.totals(errors) / batch.sizes)[batch.structures]
    is_known = ~torch.isnan(errors)
    if not is_known.any():
        return predictions.forces.new_zeros(())
    term = _rounded((errors[is_known] / settings.atomic_energy_scale) ** 2).mean()
    return term.to(predictions.forces.dtype)


def _difference_term(
    predictions: Predictions, batch: Batch, coefficients: Tensor, scale: float
) -> Tensor:
    """Return the loss of differences of energies, per structure of the batch.

    The weight of a complex or a conformer does not depend on how many others are in its batch.
    """
    errors = coefficients @ (predictions.energies - batch.energies)
    return _rounded((errors / scale) ** 2).sum() / len(batch.sizes)


def _rounded(squares: Tensor) -> Tensor:
    """Return a pseudo-Huber loss, about x²/2 and then |x|, of squared errors x²."""
    return torch.sqrt(1.0 + squares) - 1.0
