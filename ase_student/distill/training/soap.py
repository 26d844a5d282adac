"""The optimizer SOAP, with the steps compiled."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import torch
from pytorch_optimizer import SOAP
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq", "exp_avg_projected")
#: Columns of the table that ``soap.h`` reads, int64: sizes and addresses.
_SIZES, _GRADIENT, _VALUES = slice(0, 3), 3, 4


class CompiledSoap(SOAP):
    """SOAP of pytorch_optimizer on a compiled network's weights.

    Results are those of the base class, up to rounding, and checkpoints of the base class can be
    read. The base class updates the eigenbases. The projected mean of the gradient is kept from
    step to step, not computed again.

    Parameters
    ----------
    weights : iterable of Tensor
        Contiguous float32, of one to three axes.
    library : ctypes.CDLL
        See :func:`ase_student.networks.kernels.build.compile_network`.
    **settings
        Settings of the base class.
    """

    def __init__(self, weights: Any, library: ctypes.CDLL, **settings: Any):
        super().__init__(weights, **settings)
        self._library = library
        self._table: np.ndarray | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read a checkpoint of this class or of its base."""
        super().load_state_dict(state_dict)
        self._table = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the weights; the first step only starts the statistics."""
        (group,) = self.param_groups
        if group.get("step", 0) == 0:
            super().step(closure)
            return
        weights = group["params"]
        if self._table is None:
            self._table = self._addresses(weights)
        for row, weight in zip(self._table, weights, strict=True):
            row[_GRADIENT] = weight.grad.data_ptr()
        step = group["step"]
        group["step"] += 1
        self._check(
            self._library.soap_step(len(weights), self._pointer(), self._rates(group, step))
        )
        if step % group["precondition_frequency"] == 0:
            for weight in weights:
                state = self.state[weight]
                if any(len(basis) for basis in state["Q"]):
                    state["Q"] = self.get_orthogonal_matrix_qr(state)
            self._table = self._addresses(weights)
            self._check(self._library.soap_project_means(len(weights), self._pointer()))

    def _pointer(self) -> int:
        assert self._table is not None
        return int(self._table.ctypes.data)

    def _rates(self, group: dict[str, Any], step: int) -> ctypes.Array[ctypes.c_float]:
        beta1, beta2 = group["betas"]
        correction = math.sqrt(self.debias(beta2, step)) / self.debias(beta1, step)
        statistics = group["shampoo_beta"] if group["shampoo_beta"] is not None else beta2
        return (ctypes.c_float * 6)(
            1.0 - beta1,
            1.0 - beta2,
            1.0 - statistics,
            group["eps"],
            group["lr"] * correction,
            1.0 - group["lr"] * group["weight_decay"],
        )

    def _addresses(self, weights: list[Tensor]) -> np.ndarray:
        """Return the table of the weights: sizes, and addresses of the tensors of each weight."""
        table = np.zeros((len(weights), 14), np.int64)
        is_new = False
        for row, weight in zip(table, weights, strict=True):
            state = self.state[weight]
            if "exp_avg_projected" not in state:
                state["exp_avg_projected"] = torch.zeros_like(state["exp_avg"])
                is_new = True
            sizes = [1] * (3 - weight.dim()) + list(weight.shape)
            for key in MOMENTS:
                state[key] = state[key].contiguous()
            moments = [state[key] for key in MOMENTS]
            row[_SIZES] = sizes
            row[_VALUES : _VALUES + 4] = [tensor.data_ptr() for tensor in (weight, *moments)]
            for first, key in ((8, "Q"), (11, "GG")):
                if weight.dim() > 1:
                    state[key] = [_contiguous(matrix) for matrix in state[key]]
                    matrices = [matrix.data_ptr() if len(matrix) else 0 for matrix in state[key]]
                    row[first + 3 - len(matrices) : first + 3] = matrices
        if is_new:
            self._check(self._library.soap_project_means(len(weights), int(table.ctypes.data)))
        return table

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise MemoryError("not enough memory for a step of the optimizer.")


def _contiguous(matrix: Tensor | list[Any]) -> Tensor | list[Any]:
    """Return a matrix in contiguous memory; an axis without a matrix has an empty list."""
    return matrix.contiguous() if isinstance(matrix, Tensor) else matrix
