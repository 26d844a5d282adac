"""Students with fewer parameters: hidden units removed, matrices of lower rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from ase_student.student import Architecture, Student

#: Smallest side of a matrix that is replaced by its approximation of lower rank.
SMALLEST_SIDE = 16
#: Singular values below this share of the largest are zero within the precision of float32.
ZERO_SHARE = 1e-5


def pruned(student: Student, hidden: int) -> Student:
    """Return a student whose hidden layers keep only their most important units.

    Structured pruning: whole units of the perceptrons in messages and updates are removed, so that
    the student runs everywhere and can be trained further. The importance of a unit is the product
    of the norms of its input and output weights.

    Parameters
    ----------
    student : Student
    hidden : int
        Number of units that each layer keeps.

    Raises
    ------
    ValueError
        If the layers have fewer units.
    """
    shape = student.architecture
    if not isinstance(shape, Architecture) or not 1 <= hidden <= shape.hidden:
        raise ValueError(f"{hidden} hidden units cannot be kept of {getattr(shape, 'hidden', 0)}.")
    tensors = dict(student.tensors)
    for name in _perceptrons(student):
        into, out = tensors[f"{name}.first.weight"], tensors[f"{name}.second.weight"]
        carried = np.linalg.norm(into, axis=1) * np.linalg.norm(out, axis=0)
        units = np.sort(np.argsort(-carried, kind="stable")[:hidden])
        tensors[f"{name}.first.weight"] = np.ascontiguousarray(into[units])
        tensors[f"{name}.first.bias"] = np.ascontiguousarray(tensors[f"{name}.first.bias"][units])
        tensors[f"{name}.second.weight"] = np.ascontiguousarray(out[:, units])
    return dataclasses.replace(
        student, architecture=dataclasses.replace(shape, hidden=hidden), tensors=tensors
    )


def _perceptrons(student: Student) -> Iterator[str]:
    """Yield the names of the perceptrons that have the hidden width of the architecture."""
    for name in student.tensors:
        if name.endswith((".senders.first.weight", ".gates.first.weight")):
            yield name.removesuffix(".first.weight")


def low_rank(student: Student, share: float) -> Student:
    """Return a student whose matrices are replaced by the nearest matrices of a lower rank.

    Parameters
    ----------
    student : Student
    share : float
        Rank of the new matrices, as a fraction of the full rank.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"the share of the rank must be above 0 and at most 1; given {share:g}.")
    tensors = {
        name: _of_rank(np.asarray(tensor), max(1, round(share * min(tensor.shape))))
        if np.ndim(tensor) == 2 and min(tensor.shape) >= SMALLEST_SIDE
        else tensor
        for name, tensor in student.tensors.items()
    }
    return dataclasses.replace(student, tensors=tensors)


def _of_rank(matrix: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    """Return the nearest matrix of a given rank (Eckart and Young, Psychometrika 1, 211, 1936)."""
    left_vectors, values, right_vectors = np.linalg.svd(
        matrix.astype(np.float64), full_matrices=False
    )
    return ((left_vectors[:, :rank] * values[:rank]) @ right_vectors[:rank]).astype(np.float32)


def factorize(model: onnx.ModelProto) -> int:
    """Replace a product with a matrix of low rank by two products, if this is less work.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    int
        Number of products that were replaced.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    n_replaced = 0
    for node in model.graph.node:
        factors = None
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            factors = _factors(
                onnx.numpy_helper.to_array(weights[node.input[1]]), _is_transposed(node)
            )
        if factors is None:
            nodes.append(node)
            continue
        n_replaced += 1
        names = [f"{node.name}_{side}" for side in ("left", "right", "between", "product")]
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(factor, name)
            for factor, name in zip(factors, names[:2], strict=True)
        )
        has_bias = len(node.input) > 2
        make = onnx.helper.make_node
        nodes.append(make("MatMul", [node.input[0], names[0]], [names[2]], names[2]))
        product = names[3] if has_bias else node.output[0]
        nodes.append(make("MatMul", [names[2], names[1]], [product], names[3]))
        if has_bias:
            nodes.append(
                make("Add", [product, node.input[2]], [node.output[0]], f"{node.name}_add")
            )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model)
    return n_replaced


def _is_transposed(node: onnx.NodeProto) -> bool:
    """Return whether a Gemm takes the transpose of its matrix."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _factors(
    matrix: NDArray[np.float32], is_transposed: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return two factors of a matrix, None if products with them are not less work."""
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        return None
    matrix = matrix.T if is_transposed else matrix
    left_vectors, values, right_vectors = np.linalg.svd(
        matrix.astype(np.float64), full_matrices=False
    )
    rank = int((values > ZERO_SHARE * values[0]).sum())
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    factors = left_vectors[:, :rank] * values[:rank], right_vectors[:rank]
    return factors[0].astype(np.float32), factors[1].astype(np.float32)


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
