"""Build torch modules from students."""

import numpy as np
import torch
from torch import nn

from ase_student.networks.painn import PaiNN, PaiNNPotential
from ase_student.student import Architecture, Student


def build_network(student: Student, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the module that maps a structure to the energies of its atoms, for autograd.

    Raises
    ------
    ValueError
        If a tensor is missing, unknown or has another shape than the architecture asks for.
    """
    if student.architecture.family != Architecture.family:
        from ase_student.legacy import build_legacy_network

        return build_legacy_network(student, dtype)
    return _build_painn(student, dtype)


def build_potential(student: Student, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the module with the potential signature: energies, forces and virials.

    Its parameters don't require gradients.

    Raises
    ------
    ValueError
        See :func:`build_network`.
    """
    if student.architecture.family != Architecture.family:
        from ase_student.legacy import build_legacy_potential

        return build_legacy_potential(student, dtype)
    return PaiNNPotential(_build_painn(student, dtype)).requires_grad_(False).eval()


def _build_painn(student: Student, dtype: torch.dtype) -> PaiNN:
    network = PaiNN(student.architecture, dict(student.reference_energies))
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(expected.keys() | student.tensors.keys()):
        if name not in student.tensors:
            raise ValueError(f"the student lacks tensor '{name}' of shape {expected[name]}.")
        if name not in expected:
            raise ValueError(f"the student has tensor '{name}', which its architecture lacks.")
        shape = student.tensors[name].shape
        if shape != expected[name]:
            raise ValueError(f"tensor '{name}' has shape {shape}; expected {expected[name]}.")
    state = {name: torch.from_numpy(np.array(value)) for name, value in student.tensors.items()}
    network.load_state_dict(state)
    return network.to(dtype)
