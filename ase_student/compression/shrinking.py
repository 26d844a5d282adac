"""Students with fewer numbers: hidden units left out, matrices of lower rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from ase_student.student import Architecture, Student

#: Narrower matrices are not worth two products instead of one.
SMALLEST_SIDE = 16
#: Singular values below this share of the largest count as zero, in float32.
NOTHING = 1e-5


def pruned(student: Student, hidden: int) -> Student:
    """Return a student whose hidden layers have fewer units, those that carry most.

    Structured pruning: whole units of the perceptrons in messages and updates go, so that the
    student runs everywhere as any other, and can be trained on. A unit carries the product of the
    norms of its weights into it and out of it.

    Parameters
    ----------
    student : Student
    hidden : int
        Units that stay in each layer.

    Raises
    ------
    ValueError
        If there are not so many.
    """
    shape = student.architecture
    if not isinstance(shape, Architecture) or not 1 <= hidden <= shape.hidden:
        raise ValueError(f"{hidden} hidden units cannot be kept of {getattr(shape, 'hidden', 0)}.")
    tensors = dict(student.tensors)
    for name in _perceptrons(student):
        into, out = tensors[f"{name}.first.weight"], tensors[f"{name}.second.weight"]
        carried = np.linalg.norm(into, axis=1) * np.linalg.norm(out, axis=0)
        kept = np.sort(np.argsort(-carried, kind="stable")[:hidden])
        tensors[f"{name}.first.weight"] = np.ascontiguousarray(into[kept])
        tensors[f"{name}.first.bias"] = np.ascontiguousarray(tensors[f"{name}.first.bias"][kept])
        tensors[f"{name}.second.weight"] = np.ascontiguousarray(out[:, kept])
    return dataclasses.replace(
        student, architecture=dataclasses.replace(shape, hidden=hidden), tensors=tensors
    )


def _perceptrons(student: Student) -> Iterator[str]:
    """Yield the names of the perceptrons whose hidden width is the architecture's."""
    for name in student.tensors:
        if name.endswith((".senders.first.weight", ".gates.first.weight")):
            yield name.removesuffix(".first.weight")


def low_rank(student: Student, share: float) -> Student:
    """Return a student whose matrices are the nearest ones of a lower rank.

    Parameters
    ----------
    student : Student
    share : float
        Of the full rank that stays.
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
    """Return the nearest matrix of a rank (Eckart and Young, Psychometrika 1, 211, 1936)."""
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return ((left[:, :rank] * values[:rank]) @ right[:rank]).astype(np.float32)


def factorize(model: onnx.ModelProto) -> int:
    """Replace products with a matrix of low rank by two products, where that is less work.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    int
        How many were replaced.
    """
    weights = {one.name: one for one in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    n_replaced = 0
    for node in model.graph.node:
        found = None
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            found = _factors(onnx.numpy_helper.to_array(weights[node.input[1]]), _turned(node))
        if found is None:
            nodes.append(node)
            continue
        n_replaced += 1
        names = [f"{node.name}_{side}" for side in ("left", "right", "between", "product")]
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(one, name)
            for one, name in zip(found, names[:2], strict=True)
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


def _turned(node: onnx.NodeProto) -> bool:
    """Return whether a Gemm takes the transpose of its matrix."""
    return any(one.name == "transB" and one.i for one in node.attribute)


def _factors(
    matrix: NDArray[np.float32], is_turned: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return two matrices whose product is the matrix, None if that is not less work."""
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        return None
    matrix = matrix.T if is_turned else matrix
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    rank = int((values > NOTHING * values[0]).sum())
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    factors = left[:, :rank] * values[:rank], right[:rank]
    return factors[0].astype(np.float32), factors[1].astype(np.float32)


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [one for one in model.graph.initializer if one.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
