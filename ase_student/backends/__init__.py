"""Open a student for evaluation: the file, the backend and the device.

Every backend has the signature of :class:`Backend`, and one module, which writes, reads and runs
its format. torch and onnxruntime are imported when they are first needed.
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
