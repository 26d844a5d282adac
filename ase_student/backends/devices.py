"""Choose torch devices and threads, and run modules on them."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_student.backends.interface import Results


def torch_device(device: str) -> torch.device:
    """Return the torch device with a name.

    Raises
    ------
    ValueError
        If the name is unknown, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if device != "cpu" and (kind != "cuda" or (index and not index.isdigit())):
        raise ValueError(f"unknown device '{device}'; available: 'auto', 'cpu', 'cuda', 'cuda:N'.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device '{device}' was asked for, but torch sees {torch.cuda.device_count()} "
            "CUDA devices; use device='cpu'."
        )
    return torch.device(device)


_is_forked = False


def _after_fork_in_child() -> None:
    """Let torch use only one thread in a forked process.

    The threads that torch had started do not exist there: torch would wait for them forever.
    """
    global _is_forked
    _is_forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads of torch, which all torch models in the process share.

    Raises
    ------
    ValueError
        If more than one thread is requested in a forked process: only its parent has others.
    """
    if threads is None:
        return
    if _is_forked and threads > 1:
        raise ValueError(
            f"{threads} threads were asked for in a forked process, where torch can use one; "
            "start processes with multiprocessing.get_context('spawn'), or pass threads=1."
        )
    torch.set_num_threads(threads)


def run_module(module: Any, device: torch.device, *arrays: NDArray[np.generic]) -> Results:
    """Return energies, forces and virials of a potential in torch as arrays."""
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(array).to(device) for array in arrays))
    energies, forces, virials = (output.cpu().numpy() for output in outputs)
    return energies, forces, virials
