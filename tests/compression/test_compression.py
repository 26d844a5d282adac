"""Compressed files: their content, their measured errors, and refused files."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("tqdm")

import onnx
import onnxruntime

from ase_student import StudentCalculator, load_student
from ase_student.backends.metadata import METADATA_KEY
from ase_student.backends.onnx_safety import check_onnx
from ase_student.checkpoint import student_folder
from ase_student.compression import KINDS, ROUNDINGS, writing
from ase_student.compression.measurement import LIMITS, Cost, crossed
from ase_student.compression.rounding import from_bfloat16, hold_short, rounded, to_bfloat16
from ase_student.compression.writing import LimitError, compressed, prepared, write_compressed
from ase_student.export.__main__ import main
from ase_student.testing import structure

GOOD = Cost(0.001, 0.1, {"0.1": 0.01, "0.01": 0.001, "0.001": 0.01}, 0.001, 0.01, 1e-7)


@pytest.fixture(scope="module")
def small_measurement():
    """Use the bundled file in float32, and measure on a few small structures."""
    file = student_folder("ultra-tiny") / "ultra-tiny.onnx"
    few = {name: structure(name) for name in ("water_dimer", "triclinic", "eight_elements")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "to_onnx", lambda *_, **__: file.read_bytes())
        patch.setattr(writing, "structures_for", lambda *_: dict(few))
        patch.setattr(writing, "molecules_for", lambda *_: {"dimer": few["water_dimer"]})
        yield


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, small_measurement):
    return prepared("ultra-tiny", tmp_path_factory.mktemp("work"), picoseconds=0.02)


@pytest.fixture(scope="module")
def by_kind(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {kind: compressed(comparison, kind, folder) for kind in KINDS}


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_rounded_students_are_near_and_rounding_twice_changes_nothing(scheme) -> None:
    student = load_student("ultra-tiny")
    once = rounded(student, scheme)
    twice = rounded(once, scheme)
    assert once.sha256 != student.sha256
    for name, tensor in student.tensors.items():
        np.testing.assert_array_equal(twice.tensors[name], once.tensors[name])
        difference = np.abs(once.tensors[name] - tensor).max()
        assert difference <= np.abs(tensor).max() / 200
        if tensor.ndim == 1:
            assert difference == 0.0


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    unit = np.float32(1.0)
    step = np.float32(2.0**-7)
    values = np.array([unit + step / 4, unit + step / 2, unit + 3 * step / 2, unit + 0.6 * step])
    expected = [1.0, 1.0, 1.0 + 2 * step, 1.0 + step]
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(values.astype(np.float32))), expected)


def test_weights_too_large_for_float16_are_refused() -> None:
    student = load_student("ultra-tiny")
    name = next(name for name, tensor in student.tensors.items() if np.ndim(tensor) > 1)
    tensors = {**student.tensors, name: np.full_like(student.tensors[name], 1e6)}
    with pytest.raises(ValueError, match="too large for float16"):
        rounded(dataclasses.replace(student, tensors=tensors), "float16")


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_files_hold_short_weights_and_the_values_of_the_rounded_student(scheme) -> None:
    student = rounded(load_student("ultra-tiny"), scheme)
    tensors = {name: np.asarray(tensor) for name, tensor in student.tensors.items()}
    # An exporter slices, transposes and joins the weights.
    filters = next(tensor for tensor in tensors.values() if tensor.ndim == 3)
    tensors["parts"] = np.concatenate([filters[0], filters[1], filters[1]], axis=1)
    tensors["turned"] = np.ascontiguousarray(tensors["readout.first.weight"].T)
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name in tensors]
    outputs = [
        onnx.helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, tensor.shape)
        for name, tensor in tensors.items()
    ]
    weights = [onnx.numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "graph", [], outputs, weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
    hold_short(model, student, scheme)
    kinds = {"float16": 10, "bfloat16": 16, "int8-weights": 3}
    shortened = [
        initializer
        for initializer in model.graph.initializer
        if initializer.data_type == kinds[scheme]
    ]
    assert (
        sum(int(np.prod(initializer.dims)) for initializer in shortened)
        >= 0.9 * student.n_parameters
    )
    content = model.SerializeToString()
    check_onnx(content, "model.onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for (name, expected), output in zip(tensors.items(), session.run(None, {}), strict=True):
        np.testing.assert_array_equal(output, expected, err_msg=name)


def test_tensors_with_other_values_stay_in_float32() -> None:
    student = load_student("ultra-tiny")
    values = np.linspace(0.0, 1.0, 100, dtype=np.float32)
    tensor = onnx.numpy_helper.from_array(values, "w")
    graph = onnx.helper.make_graph([], "graph", [], [], [tensor])
    for scheme in ROUNDINGS:
        model = onnx.helper.make_model(graph)
        hold_short(model, student, scheme)
        assert [initializer.name for initializer in model.graph.initializer] == ["w"]
        assert not model.graph.node


def test_int8_files_compute_with_integers_and_exceed_the_limits(by_kind) -> None:
    operators = {
        name: {node.op_type for node in onnx.load_from_string(by_kind[name].content).graph.node}
        for name in KINDS
    }
    assert {"MatMulInteger", "DynamicQuantizeLinear"} <= operators["int8-dynamic"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators["int8-static"]
    for name in operators:
        # Energies that change in steps exceed the limits.
        assert by_kind[name].crossed
        assert by_kind[name].document["measured"]["force_rmse"] > LIMITS["force_rmse"][0]
    # Dynamic scales depend on the other structures of a call; static scales do not.
    dynamic, static = (by_kind[name].document["measured"]["batch_forces"] for name in operators)
    assert dynamic > 100 * static


def test_readout_and_vectors_stay_in_float(by_kind) -> None:
    model = onnx.load_from_string(by_kind["int8-dynamic"].content)
    quantized = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    names = {name for node in quantized for name in node.input}
    assert quantized
    assert not [name for name in names if "readout" in name or "vectors" in name or "mix" in name]


def test_a_file_beyond_the_limits_names_them_and_the_calculator_warns(by_kind, tmp_path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(by_kind["int8-static"].content)
    with pytest.warns(UserWarning, match=r"compressed \(int8-static\) beyond .* forces differ"):
        calculator = StudentCalculator(path, guard="off")
    compression = calculator.info.metadata["compression"]
    assert compression["crossed"] == by_kind["int8-static"].crossed
    assert compression["measured"].keys() == compression["float32"].keys()
    assert calculator.info.weights_sha256 == load_student("ultra-tiny").sha256
    atoms = structure("aspirin")
    atoms.calc = calculator
    assert np.isfinite(atoms.get_forces()).all()


def test_figures_beyond_the_limits_are_named() -> None:
    assert crossed(GOOD, GOOD) == []
    for name, value in (
        ("force_rmse", 0.02), ("energy_mae", 1.0), ("batch_forces", 1e-3), ("drift", 0.2),
        ("force_rmse", float("nan")), ("drift", float("nan")),
    ):  # fmt: skip
        (sentence,) = crossed(dataclasses.replace(GOOD, **{name: value}), GOOD)
        assert "limit" in sentence
    worse = dataclasses.replace(GOOD, disagreement={**GOOD.disagreement, "0.01": 0.5})
    (sentence,) = crossed(worse, GOOD)
    assert sentence.startswith("at 0.01 Å, forces deviate")
    # A drift within its uncertainty is within the limit.
    assert crossed(dataclasses.replace(GOOD, drift=0.02, drift_uncertainty=0.01), GOOD) == []


@pytest.fixture
def ready(monkeypatch, comparison, by_kind):
    """Use the measurements of the session's fixtures."""
    monkeypatch.setattr(writing, "prepared", lambda *_, **__: comparison)
    monkeypatch.setattr(writing, "compressed", lambda _, scheme, __: by_kind[scheme])


def test_command_refuses_a_file_beyond_the_limits_until_accepted(ready, tmp_path, capsys) -> None:
    options = ["ultra-tiny", "-o", str(tmp_path), "--quantize", "int8-static"]
    assert main(options) == 1
    error = capsys.readouterr().err
    assert "limit crossed: forces differ" in error
    assert "--accept" in error
    assert not list(tmp_path.iterdir())
    assert main([*options, "--accept"]) == 0
    assert "wrote" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert path.name == "ultra-tiny-int8-static.onnx"
    assert main(["verify", str(path)]) == 0


def test_a_file_within_the_limits_is_written_and_opens_without_a_warning(
    ready, comparison, by_kind, tmp_path, recwarn, monkeypatch
) -> None:
    original = by_kind["int8-static"]
    document = {**original.document, "crossed": []}
    model = onnx.load_from_string(original.content)
    content = writing._finished(model, comparison, comparison.references, document)
    harmless = dataclasses.replace(original, content=content, document=document, crossed=[])
    monkeypatch.setattr(writing, "compressed", lambda *_: harmless)
    path, _ = write_compressed("ultra-tiny", tmp_path, "int8-static")
    StudentCalculator(path, guard="off")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accept"], "--accept belongs to --quantize"),
        (["--threads", "2"], "--threads belongs to --quantize"),
        (["--quantize", "float16", "--dtype", "float64"], "compute in float32"),
        (["--quantize", "float16", "--picoseconds", "0.001"], "must be 0.01 or more"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, message, tmp_path, capsys) -> None:
    assert main(["ultra-tiny", "-o", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_file_with_too_large_tolerances_is_refused(by_kind, tmp_path) -> None:
    model = onnx.load_from_string(by_kind["int8-static"].content)
    document = json.loads(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    document["compression"]["tolerances"]["forces"] = 1e6
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(document)})
    path = tmp_path / "loose.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="invalid tolerances"):
        StudentCalculator(path, guard="off")
    assert isinstance(LimitError("", ""), ValueError)
