"""Gradients of the training loss without derivatives of derivatives.

The loss reads forces, so its gradient by the weights θ reads second derivatives of the energy. Of
those only one direction is needed: with λ the loss's gradient by the forces,

    Σ_i λ_i · dF_i/dθ = −d/dθ [λ · ∇E(x)] ≈ −[dE(x + hλ)/dθ − dE(x)/dθ] / h.

The backward pass that gives the forces gives dE(x)/dθ too, and one at displaced atoms gives the
rest. The same holds for the stress, with a strain for the displacement. The error is of first order
in h and changes sign with it: signs that alternate from step to step leave one of second order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_student.distill.training.batches import Batch
from ase_student.distill.training.loss import (
    Energies,
    Predictions,
    loss,
    per_volume,
    predict_and_differentiate,
    strained,
)
from ase_student.distill.training.settings import TrainingSettings

#: Largest displacement of an atom in Å, and largest component of a strain. Float32 energies still
#: resolve it well; a test says how well.
STEP = 0.002


def backward_by_displacement(
    energies_of: Energies,
    weights: Sequence[Tensor],
    batch: Batch,
    settings: TrainingSettings,
    energy_weight: float,
    sign: float = 1.0,
) -> Tensor:
    """Return the loss of a batch, and add its gradient to those of the network's weights.

    Parameters
    ----------
    energies_of : callable
        Differentiable once, by weights and positions.
    weights : sequence of Tensor
        The weights that the energies depend on.
    batch : Batch
    settings : Settings
    energy_weight : float
        See :func:`ase_student.distill.training.loss.loss`.
    sign : 1.0 or -1.0
        Of the displacement.
    """
    predictions, at_rest = predict_and_differentiate(energies_of, batch, weights)
    atomic_energies = predictions.atomic_energies.detach().requires_grad_()
    forces = predictions.forces.detach().requires_grad_()
    stress = predictions.stress
    variables = [atomic_energies, forces]
    if stress is not None:
        stress = stress.detach().requires_grad_()
        variables.append(stress)
    leaves = Predictions(atomic_energies, batch.totals(atomic_energies), forces, stress)
    value = loss(leaves, batch, settings, energy_weight)
    by_energies, by_forces, *by_stress = torch.autograd.grad(
        value, variables, allow_unused=True, materialize_grads=True
    )
    directions = [-by_forces.to(torch.float64)]
    if by_stress:
        directions.append(per_volume(batch, torch.nan_to_num(by_stress[0])))
    largest = max(float(direction.abs().max()) for direction in directions)
    step = sign * STEP / max(largest, 1e-30)
    displacement, *strain = [step * direction for direction in directions]
    numbers, positions, neighbors, offsets = batch.inputs
    if strain:
        positions, offsets = strained(batch, positions, strain[0])
    displaced = energies_of(numbers, positions + displacement, neighbors, offsets)
    (displaced * (by_energies + 1.0 / step)).sum().backward()
    for weight, gradient in zip(weights, at_rest, strict=True):
        if weight.grad is not None and gradient is not None:
            weight.grad.sub_(gradient, alpha=1.0 / step)
    return value.detach()
