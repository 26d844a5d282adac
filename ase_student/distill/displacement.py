"""Gradients of the training loss without derivatives of derivatives.

The loss reads forces, so its gradient by the weights θ reads second derivatives of the energy. Of
those only one direction is needed: with λ the loss's gradient by the forces,

    Σ_i λ_i · dF_i/dθ = −d/dθ [λ · ∇E(x)] ≈ −d/dθ [E(x + hλ) − E(x − hλ)] / 2h,

two energies at displaced atoms, which plain backward passes serve. The same holds for the stress,
with a strain for the displacement. The error is of second order in the displacement.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ase_student.distill.batches import Batch
from ase_student.distill.objective import Predictions, loss, per_volume, predict, strained
from ase_student.distill.settings import Settings

#: Largest displacement of an atom in Å, and largest component of a strain. Against exact
#: derivatives it is the least that float32 energies resolve well; a test says how well.
STEP = 0.01

#: A network's energies of atoms, (N,) float64 in eV, from the four inputs of a potential.
Energies = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def backward_by_displacement(
    energies_of: Energies, batch: Batch, settings: Settings, energy_weight: float
) -> Tensor:
    """Return the loss of a batch, and add its gradient to those of the network's weights.

    Parameters
    ----------
    energies_of : callable
        Differentiable once, by weights and positions.
    batch : Batch
    settings : Settings
    energy_weight : float
        See :func:`ase_student.distill.objective.loss`.
    """
    predictions = predict(energies_of, batch)
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
    step = STEP / max(largest, 1e-30)
    displacement, *strain = [step * direction for direction in directions]
    numbers, positions, neighbors, offsets = batch.inputs
    moved, moved_offsets = [], []
    for sign in (1.0, -1.0):
        new_positions, new_offsets = positions, offsets
        if strain:
            new_positions, new_offsets = strained(batch, positions, sign * strain[0])
        moved.append(new_positions + sign * displacement)
        moved_offsets.append(new_offsets)
    energies = energies_of(
        torch.cat([numbers, numbers]),
        torch.cat(moved),
        torch.cat([neighbors, neighbors + len(numbers)]),
        torch.cat(moved_offsets),
    )
    forward, back = energies.chunk(2)
    target = ((forward + back) * (0.5 * by_energies)).sum()
    target = target + (forward - back).sum() / (2.0 * step)
    target.backward()
    return value.detach()
