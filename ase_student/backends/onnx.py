"""Run exported ONNX files with ONNX Runtime; torch is not needed."""

import ctypes
from typing import Any

import numpy as np
import onnxruntime
from ase.calculators.calculator import InputError
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from ase_student.backends.forks import renew_in_forks
from ase_student.backends.interface import Results
from ase_student.backends.memory import check_memory
from ase_student.backends.metadata import INPUTS, METADATA_KEY, OUTPUTS, decode
from ase_student.backends.onnx_safety import check_onnx

# All exceptions of the parser and the session for a damaged or foreign file.
_UNREADABLE = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
    UnicodeDecodeError,
)


class OnnxBackend:
    """A potential in an ONNX Runtime session.

    Parameters
    ----------
    content : bytes
        Content of the file, which must be self-contained: weights in other files are not read.
    file : str
        Name of the file in error messages.
    device : str
        'auto', 'cpu', 'cuda' or 'cuda:N'.
    threads : int or None
        Threads of the session; None for ONNX Runtime's default, one per physical core.
    trust : bool
        Allow operators that no student has.

    Raises
    ------
    ValueError
        If the file is not an exported student, is damaged, or is not self-contained
        (:mod:`ase_student.backends.onnx_safety`); or if the device is unknown or not available.
    """

    backend = "onnx"

    def __init__(
        self,
        content: bytes,
        file: str,
        device: str = "auto",
        threads: int | None = None,
        trust: bool = False,
    ):
        chosen, providers = _providers(device)
        check_onnx(content, file, trust)
        self._content, self._providers, self._threads = content, providers, threads
        self._is_renewed = False
        try:
            self._session = self._new_session()
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
            inputs = tuple(item.name for item in self._session.get_inputs())
            outputs = tuple(item.name for item in self._session.get_outputs())
        except _UNREADABLE as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"'{file}' is not a readable ONNX file: {reason}") from error
        self.device = self._used_device(device, chosen)
        self.info = decode(text, file)
        if inputs != INPUTS or outputs != OUTPUTS:
            raise ValueError(
                f"'{file}' has inputs {inputs} and outputs {outputs}; "
                f"a student has {INPUTS} and {OUTPUTS}."
            )
        renew_in_forks(self)

    def _new_session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        return onnxruntime.InferenceSession(self._content, options, providers=self._providers)

    def renew_after_fork(self) -> None:
        """Prepare a new session for a forked process, in which the session's threads are gone.

        The old session would wait for them forever, also when it is deleted. Its reference count
        is therefore increased, so that it is never deleted.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._is_renewed = True

    def _used_device(self, requested: str, chosen: str) -> str:
        """Return the device of the session; ONNX Runtime falls back to the CPU without a warning.

        Raises
        ------
        ValueError
            If a GPU was requested by name and the session does not run there.
        """
        if chosen == "cpu" or self._session.get_providers()[0] == "CUDAExecutionProvider":
            return chosen
        if requested == "auto":
            return "cpu"
        raise ValueError(
            f"device '{requested}' was asked for, but ONNX Runtime cannot start CUDA there: it "
            "needs CUDA and cuDNN of the versions that onnxruntime-gpu was built with; or use "
            "device='cpu'."
        )

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies, forces and virials; see :class:`ase_student.backends.Backend`.

        Raises
        ------
        InputError
            If the structure needs more memory than is free.
        """
        if self._is_renewed:
            self._session, self._is_renewed = self._new_session(), False
        if self.device == "cpu":
            check_memory(self.info.metadata, *neighbors.shape)
        arrays = dict(zip(INPUTS, (numbers, positions, neighbors, offsets), strict=True))
        try:
            energies, forces, virials = self._session.run(OUTPUTS, arrays)
        except errors.RuntimeException as error:
            # The message is many lines of C++; the cause is usually a lack of memory.
            raise InputError(
                f"ONNX Runtime cannot compute {len(numbers):,} atoms, most likely for want of "
                f"memory ({' '.join(str(error).split())[:120]}); use backend='native' or a smaller "
                "structure."
            ) from error
        return energies, forces, virials


def _providers(device: str) -> tuple[str, list[Any]]:
    """Return the device to use and the execution providers for it.

    Raises
    ------
    ValueError
        If the device is unknown, or needs CUDA and this ONNX Runtime does not have it.
    """
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if has_cuda else "cpu"
    kind, _, index = device.partition(":")
    if device == "cpu":
        return device, ["CPUExecutionProvider"]
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(f"unknown device '{device}'; available: 'auto', 'cpu', 'cuda', 'cuda:N'.")
    if not has_cuda:
        raise ValueError(
            f"device '{device}' was asked for, but this onnxruntime has no CUDA: "
            "pip install onnxruntime-gpu, or use device='cpu'."
        )
    return device, [("CUDAExecutionProvider", {"device_id": int(index or 0)})]
