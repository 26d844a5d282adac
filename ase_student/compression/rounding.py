"""Weights that are stored in 16 or 8 bits; computations are in float32.

The weights of the student are rounded first. The result is a slightly different student, whose
forces are still exactly minus the gradient of its energy. The ONNX file then stores matrices in the
short format; a runtime converts them to float32 when it opens the file. Biases and other vectors,
which are small and sensitive, stay in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from ase_student.student import Student

Weights = NDArray[np.float32]
LARGEST_INTEGER = 127
#: Smallest number of elements of a tensor in an ONNX file that is stored in the short format, which
#: needs additional nodes.
SMALLEST_TENSOR = 64


def rounded(student: Student, scheme: str) -> Student:
    """Return a student whose matrices are rounded to values of the short format.

    Parameters
    ----------
    student : Student
    scheme : str
        'float16', 'bfloat16' or 'int8-weights'.

    Raises
    ------
    ValueError
        If a weight is too large for float16.
    """
    tensors = {
        name: _rounded(name, np.asarray(tensor, dtype=np.float32), scheme)
        if np.ndim(tensor) > 1
        else tensor
        for name, tensor in student.tensors.items()
    }
    return dataclasses.replace(student, tensors=tensors)


def _rounded(name: str, tensor: Weights, scheme: str) -> Weights:
    if scheme == "float16":
        if np.abs(tensor).max(initial=0.0) > np.finfo(np.float16).max:
            raise ValueError(f"tensor '{name}' has values above 65504, too large for float16.")
        return tensor.astype(np.float16).astype(np.float32)
    if scheme == "bfloat16":
        return from_bfloat16(to_bfloat16(tensor))
    scale = scale_of(tensor)
    # In float32, as DequantizeLinear computes it.
    return np.rint(tensor / scale).astype(np.float32) * scale


def scale_of(tensor: Weights) -> np.float32:
    """Return the scale of a tensor: the value of one step of its 8-bit integers."""
    largest = np.abs(tensor).max(initial=0.0)
    return np.float32(largest / LARGEST_INTEGER if largest else 1.0)


def to_bfloat16(values: Weights) -> NDArray[np.uint16]:
    """Return the upper halves of float32 numbers, rounded to the nearest, ties to even.

    >>> from_bfloat16(to_bfloat16(np.array([1.0, 3.14159274], dtype=np.float32))).tolist()
    [1.0, 3.140625]
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(halves: NDArray[np.uint16]) -> Weights:
    """Return float32 numbers from their upper halves."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def hold_short(model: onnx.ModelProto, student: Student, scheme: str) -> None:
    """Store float32 tensors of an ONNX file in the short format, if this changes no value.

    Parameters
    ----------
    model : onnx.ModelProto
        Model of the rounded student; changed in place.
    student : Student
        The rounded student.
    scheme : str
        'float16', 'bfloat16' or 'int8-weights'.
    """
    scales = {name: scale_of(np.asarray(values)) for name, values in student.tensors.items()}
    tensors: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        short = _short(tensor, scales, scheme)
        if short is None:
            tensors.append(tensor)
        else:
            tensors.extend(short[0])
            nodes.append(short[1])
    nodes.extend(model.graph.node)
    del model.graph.initializer[:]
    del model.graph.node[:]
    model.graph.initializer.extend(tensors)
    model.graph.node.extend(nodes)


def _short(
    tensor: onnx.TensorProto, scales: Mapping[str, np.float32], scheme: str
) -> tuple[list[onnx.TensorProto], onnx.NodeProto] | None:
    """Return a tensor in the short format and the node that converts it; None to keep it."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    values = onnx.numpy_helper.to_array(tensor)
    if values.size < SMALLEST_TENSOR:
        return None
    name = f"{tensor.name}_{scheme.partition('-')[0]}"
    if scheme == "int8-weights":
        return _short_integers(tensor.name, name, values, scales)
    if scheme == "float16":
        halves = values.astype(np.float16)
        is_exact = np.array_equal(halves.astype(np.float32), values)
        initializer = onnx.numpy_helper.from_array(halves, name)
    else:
        upper = to_bfloat16(values)
        is_exact = np.array_equal(from_bfloat16(upper), values)
        initializer = onnx.helper.make_tensor(
            name, onnx.TensorProto.BFLOAT16, values.shape, upper.tobytes(), raw=True
        )
    if not is_exact:
        return None
    float_type = onnx.TensorProto.FLOAT
    return [initializer], onnx.helper.make_node(
        "Cast", [name], [tensor.name], f"{name}_cast", to=float_type
    )


def _short_integers(
    original: str, name: str, values: Weights, scales: Mapping[str, np.float32]
) -> tuple[list[onnx.TensorProto], onnx.NodeProto] | None:
    """Return a tensor as integers and a scale, if the scale of any tensor of the student fits it.

    Tensors of a file are parts, transposes and concatenations of a tensor of the student, so that
    they have its scale.
    """
    for scale in sorted(set(scales.values())):
        integers = np.rint(values / scale)
        if np.abs(integers).max() > LARGEST_INTEGER:
            continue
        short = integers.astype(np.int8)
        if np.array_equal(short.astype(np.float32) * scale, values):
            initializer = onnx.numpy_helper.from_array(short, name)
            step = onnx.numpy_helper.from_array(np.array(scale), f"{name}_scale")
            node = onnx.helper.make_node(
                "DequantizeLinear", [name, step.name], [original], f"{name}_cast"
            )
            return [initializer, step], node
    return None
