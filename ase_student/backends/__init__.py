"""Open a student for evaluation: the file, the backend and the device.

Every backend implements the protocol :class:`Backend` in a module of its own, which also reads its
format; writers are in the same module, or in ``onnx_export``. torch and onnxruntime are imported
when they are first needed.
"""

from ase_student.backends.accelerators import torch_takes_gpu
from ase_student.backends.interface import BACKENDS, DTYPES, Backend, PotentialInfo, Results
from ase_student.backends.opening import open_backend, open_exported

__all__ = [
    "BACKENDS",
    "DTYPES",
    "Backend",
    "PotentialInfo",
    "Results",
    "open_backend",
    "open_exported",
    "torch_takes_gpu",
]
