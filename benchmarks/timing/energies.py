"""Compute energies without forces, in backends that can leave out the backward pass.

:class:`ase_student.StudentCalculator` always computes forces and virials with the energies. This
module measures their cost. In torch, the backward pass is not called. ONNX Runtime runs only the
part of the graph that the energies need. A TorchScript program is traced as a whole and cannot
leave out a part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_student.checkpoint import load_student, resolve_model

#: Backends that can leave out forces.
ENERGY_BACKENDS = ("onnx", "torch")

Energies = Callable[..., NDArray[np.float64]]


def open_energies(student: str, backend: str, device: str, threads: int) -> Energies:
    """Return a function with the inputs of a backend's ``evaluate`` that returns atomic energies.

    Raises
    ------
    ValueError
        If the backend cannot compute energies without forces.
    """
    if backend == "onnx":
        return _open_onnx(student, device, threads)
    if backend == "torch":
        return _open_torch(student, device, threads)
    raise ValueError(f"backend '{backend}' cannot skip forces; 'onnx' and 'torch' can.")


def _open_onnx(student: str, device: str, threads: int) -> Energies:
    import onnxruntime

    from ase_student.backends.metadata import INPUTS

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    kind = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    content = resolve_model(student, f"{student}.onnx").read_bytes()
    session = onnxruntime.InferenceSession(content, options, providers=[kind])
    run_options = onnxruntime.RunOptions()
    run_options.only_execute_path_to_fetches = True

    def energies(*arrays: NDArray[Any]) -> NDArray[np.float64]:
        inputs = dict(zip(INPUTS, arrays, strict=True))
        result: NDArray[np.float64] = session.run(["energies"], inputs, run_options)[0]
        return result

    return energies


def _open_torch(student: str, device: str, threads: int) -> Energies:
    import torch

    from ase_student.backends.devices import set_threads, torch_device
    from ase_student.networks import build_network

    set_threads(threads)
    target = torch_device(device)
    network = build_network(load_student(student)).to(target).eval()

    def energies(*arrays: NDArray[Any]) -> NDArray[np.float64]:
        with torch.inference_mode():
            tensor = network(*(torch.from_numpy(array).to(target) for array in arrays))
        result: NDArray[np.float64] = tensor.cpu().numpy()
        return result

    return energies
