"""Pruned and low-rank students."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
import onnxruntime

from ase_student import StudentCalculator, load_student, save_student
from ase_student.backends.onnx_safety import check_onnx
from ase_student.compression.shrinking import factorize, low_rank, pruned
from ase_student.testing import structure


@pytest.fixture(scope="module")
def student():
    return load_student("ultra-tiny")


def energy_of(student, folder) -> float:
    path = folder / "weights.safetensors"
    save_student(student, path)
    atoms = structure("aspirin")
    atoms.calc = StudentCalculator(path, dtype="float64", guard="off")
    return float(atoms.get_potential_energy())


def test_units_without_effect_are_pruned_first_and_change_nothing(student, tmp_path) -> None:
    n_units = student.architecture.hidden
    idle = [1, n_units - 2]
    tensors = dict(student.tensors)
    for name in tensors:
        if name.endswith((".senders.second.weight", ".gates.second.weight")):
            tensors[name] = tensors[name].copy()
            tensors[name][:, idle] = 0.0
    with_idle_units = dataclasses.replace(student, tensors=tensors)
    smaller = pruned(with_idle_units, n_units - len(idle))
    assert smaller.architecture.hidden == n_units - len(idle)
    assert smaller.n_parameters < student.n_parameters
    assert energy_of(smaller, tmp_path) == pytest.approx(
        energy_of(with_idle_units, tmp_path), abs=1e-9
    )


def test_pruning_to_all_units_is_the_same_student(student) -> None:
    assert pruned(student, student.architecture.hidden).sha256 == student.sha256


@pytest.mark.parametrize("hidden", [0, 1000])
def test_impossible_numbers_of_units_are_refused(student, hidden) -> None:
    with pytest.raises(ValueError, match="hidden units cannot be kept"):
        pruned(student, hidden)


def test_low_rank_is_the_nearest_matrix_of_that_rank(student) -> None:
    shorter = low_rank(student, 0.5)
    n_changed = 0
    for name, tensor in student.tensors.items():
        if np.ndim(tensor) == 2 and min(tensor.shape) >= 16:
            values = np.linalg.svd(np.float64(tensor), compute_uv=False)
            rank = round(0.5 * min(tensor.shape))
            values_of_low_rank = np.linalg.svd(np.float64(shorter.tensors[name]), compute_uv=False)
            assert (values_of_low_rank[rank:] < 1e-5 * values_of_low_rank[0]).all()
            left_out = np.linalg.norm(shorter.tensors[name] - tensor)
            assert left_out == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-4)
            n_changed += 1
        else:
            np.testing.assert_array_equal(shorter.tensors[name], tensor)
    assert n_changed
    with pytest.raises(ValueError, match="share of the rank"):
        low_rank(student, 0.0)


def test_factors_give_the_same_results() -> None:
    rng = np.random.default_rng(0)
    low = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 30))).astype(np.float32)
    full = rng.normal(size=(30, 30)).astype(np.float32)
    bias = rng.normal(size=30).astype(np.float32)
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Gemm", ["x", "turned", "bias"], ["a"], "first", transB=1),
        make("MatMul", ["x", "low"], ["b"], "second"),
        make("Add", ["a", "b"], ["c"]),
        make("MatMul", ["c", "full"], ["y"], "third"),
    ]
    arrays = {"turned": np.ascontiguousarray(low.T), "low": low, "full": full, "bias": bias}
    graph = onnx.helper.make_graph(
        nodes, "graph", [info("x", 1, ["n", 40])], [info("y", 1, ["n", 30])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
    original = model.SerializeToString()
    assert factorize(model) == 2
    assert {initializer.name for initializer in model.graph.initializer} >= {"full", "bias"}
    assert "low" not in {initializer.name for initializer in model.graph.initializer}
    x = rng.normal(size=(7, 40)).astype(np.float32)
    factorized = model.SerializeToString()
    check_onnx(factorized, "model.onnx")
    results = [
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(
            None, {"x": x}
        )[0]
        for content in (original, factorized)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-2)
