"""Torch modules of students."""

import numpy as np
import torch
from torch import nn

from ase_student.networks.painn import PaiNN, PaiNNPotential
from ase_student.student import WIDTHS, Architecture, Student


def build_network(student: Student, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the module that maps a structure to the energies of its atoms, for autograd.

    Raises
    ------
    ValueError
        If a tensor is missing or unknown, or its shape is not that of the architecture.
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
    references = dict(student.reference_energies)
    _check_sizes(student)
    network = PaiNN(student.architecture, references)
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


def _check_sizes(student: Student) -> None:
    """Raise ValueError if sizes do not fit the tensors, before memory for them is allocated."""
    architecture = student.architecture
    widths = {name: getattr(architecture, name) for name in WIDTHS}
    n_values = sum(tensor.size for tensor in student.tensors.values())
    second_largest, largest = sorted(widths.values())[-2:]
    # Some matrix has about as many rows and columns as the two largest widths.
    if widths["blocks"] > len(student.tensors) or second_largest * largest > 4 * n_values:
        sizes = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(
            f"the student has {len(student.tensors)} tensors with {n_values:,} values, too few for "
            f"{sizes}."
        )
