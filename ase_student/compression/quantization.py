"""INT8 arithmetic by ONNX Runtime: integer matrix products.

Products with the weights of scalar features are quantized, in the forward and in the backward pass.
The radial functions, all operations on vectors, and the readout stay in float32: differences of meV
in the readout's output are important, and vectors determine the direction of forces.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ase import Atoms

from ase_student.backends.onnx_export import quiet
from ase_student.backends.self_check import neighbors_of

_QUANTIZED = re.compile(
    r"network\.(first\.scalars|interactions\.\d+\.(senders\.(first|second)|scalars)"
    r"|updates\.\d+\.gates\.(first|second))\.weight(_Transposed)?$"
)


def quantized(
    model: onnx.ModelProto, kind: str, cutoff: float, *, calibration: Sequence[Atoms]
) -> onnx.ModelProto:
    """Return a model whose matrix products of scalar features use integers.

    Parameters
    ----------
    model : onnx.ModelProto
        Model of a student in float32.
    kind : str
        'int8-dynamic' or 'int8-static'.
    cutoff : float, Å
    calibration : sequence of Atoms
        Structures; used by static quantization only.

    Raises
    ------
    ValueError
        If the model has no matrix products that can be quantized.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.onnx_model import ONNXModel

    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    model = wrapped.model
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and any(map(_QUANTIZED.match, node.input))
    ]
    if not nodes:
        raise ValueError("the network has no matrix products that can be quantized to INT8.")
    common: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul"],
        "nodes_to_quantize": nodes,
        "weight_type": quantization.QuantType.QInt8,
        # Without VNNI instructions, sums of products of the full range overflow 16 bits.
        "reduce_range": True,
    }
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        if kind == "int8-dynamic":
            quantization.quantize_dynamic(source, target, **common)
        else:
            quantization.quantize_static(
                source,
                target,
                _reader(calibration, cutoff),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                **common,
            )
        result = onnx.load(target)
    del result.graph.value_info[:]
    return result


def _reader(structures: Sequence[Atoms], cutoff: float) -> Any:
    """Return a reader that gives the inputs for calibration."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._remaining = iter(structures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            atoms = next(self._remaining, None)
            if atoms is None:
                return None
            neighbors, offsets = neighbors_of(atoms, cutoff)
            return {
                "numbers": atoms.numbers.astype(np.int64),
                "positions": atoms.positions,
                "neighbors": neighbors,
                "offsets": offsets,
            }

    return Reader()
