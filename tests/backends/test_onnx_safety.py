import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_student.backends import onnx_safety
from ase_student.backends.onnx_safety import check_onnx, seal
from ase_student.checkpoint import student_folder

onnx = pytest.importorskip("onnx")
helper = onnx.helper

N_MUTATIONS = 2000


def model(nodes=None, initializers=(), **options):
    """Return a model that adds weights to its input."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
    weights = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "weights")
    nodes = nodes or [helper.make_node("Add", ["x", "weights"], ["y"])]
    graph = helper.make_graph(nodes, "graph", [x], [y], [weights, *initializers])
    return helper.make_model(graph, ir_version=8, **options)


def external():
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def sized(*dims):
    return onnx.TensorProto(name="w", dims=dims, data_type=onnx.TensorProto.FLOAT)


def graph_with(tensor):
    return helper.make_graph([], "inner", [], [], [tensor])


def node_with(**attributes):
    return helper.make_node("Constant", [], ["y"], **attributes)


def sparse(values, *dims):
    indices = onnx.numpy_helper.from_array(np.zeros(1, dtype=np.int64), "i")
    return onnx.SparseTensorProto(values=values, indices=indices, dims=dims)


def with_sparse_initializer(tensor):
    onnx_model = model()
    onnx_model.graph.sparse_initializer.append(sparse(tensor, 4))
    return onnx_model


def with_function(nodes, domain=""):
    onnx_model = model()
    opsets = [helper.make_opsetid("", 18)]
    onnx_model.functions.append(helper.make_function(domain, "F", [], ["y"], nodes, opsets))
    return onnx_model


def with_training(tensor):
    onnx_model = model()
    onnx_model.training_info.add().algorithm.CopyFrom(graph_with(tensor))
    return onnx_model


def location_only():
    tensor = sized(4)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return tensor


def refusal(content, trust=False):
    with pytest.raises(ValueError, match=r"^'model.onnx' [^\n]*\.$") as caught:
        check_onnx(content, "model.onnx", trust)
    return str(caught.value)


def accepts(content):
    try:
        check_onnx(content, "model.onnx")
    except ValueError as error:
        message = str(error)
    else:
        return True
    assert message.startswith("'model.onnx' ")
    assert "\n" not in message
    return False


def test_bundled_student_passes():
    check_onnx((student_folder("tiny") / "tiny.onnx").read_bytes(), "tiny.onnx")


def test_self_contained_models_of_standard_operators_pass():
    onnx_model = model()
    onnx_model.metadata_props.add(key="long", value="x" * 1000)
    check_onnx(onnx_model.SerializeToString(), "model.onnx")
    opsets = [helper.make_opsetid("ai.onnx", 18)]
    check_onnx(model(opset_imports=opsets).SerializeToString(), "model.onnx")


BRANCHES = {"then_branch": graph_with(sized(4)), "else_branch": graph_with(sized(4))}


@pytest.mark.parametrize(
    ("onnx_model", "message"),
    [
        (model([helper.make_node("If", ["x"], ["y"], **BRANCHES)]), "operator 'If'"),
        (model([helper.make_node("Loop", ["x"], ["y"], body=graph_with(sized(4)))]), "'Loop'"),
        (model([helper.make_node("ConstantOfShape", ["x"], ["y"])]), "'ConstantOfShape'"),
        (model([node_with(body=helper.make_graph([helper.make_node("If", [], [])], "g", [], []))]),
         "'If'"),
        (with_function([node_with(value=sized(4))]), "functions or training"),
        (with_training(sized(4)), "functions or training"),
    ],
)  # fmt: skip
def test_operators_unused_by_students_need_trust(onnx_model, message):
    assert message in refusal(onnx_model.SerializeToString())
    check_onnx(onnx_model.SerializeToString(), "model.onnx", trust=True)


@pytest.mark.parametrize("packed", ["raw", "int64_data"])
@pytest.mark.parametrize("sizes", [[2**40], [2**20, 2**20], [1, 2**62, -1]])
def test_shapes_of_oversized_tensors_are_refused(sizes, packed):
    if packed == "raw":
        shape = onnx.numpy_helper.from_array(np.array(sizes), "shape")
    else:
        shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [len(sizes)], sizes)
    nodes = [helper.make_node("Expand", ["x", "shape"], ["y"])]
    content = model(nodes, [shape]).SerializeToString()
    assert "has a tensor of more than 67,108,864 elements" in refusal(content)
    ordinary = onnx.numpy_helper.from_array(np.array([7, -1, 2**63 - 1]), "shape")
    check_onnx(model(nodes, [ordinary]).SerializeToString(), "model.onnx")


@pytest.mark.parametrize(
    "onnx_model",
    [
        model(initializers=[external()]),
        model(initializers=[location_only()]),
        model([node_with(value=external())]),
        model([node_with(sparse_value=sparse(external(), 4))]),
        model([node_with(values=[sized(4), external()])]),
        model([node_with(body=graph_with(external()))]),
        model([node_with(body=helper.make_graph([node_with(value=external())], "g", [], []))]),
        model([node_with(bodies=[graph_with(sized(4)), graph_with(external())])]),
        with_sparse_initializer(external()),
        with_function([node_with(value=external())]),
        with_training(external()),
    ],
)
def test_weights_in_other_files_are_refused(onnx_model):
    # Trust does not allow them either.
    assert "has tensors in other files" in refusal(onnx_model.SerializeToString(), trust=True)
    refusal(onnx_model.SerializeToString())


@pytest.mark.parametrize(
    "onnx_model",
    [
        model([helper.make_node("Add", ["x", "x"], ["y"], domain="com.example")]),
        model(opset_imports=[helper.make_opsetid("com.example", 1)]),
        model([node_with(body=helper.make_graph(
            [helper.make_node("Evil", [], [], domain="com.example")], "g", [], []
        ))]),
        with_function([node_with(value=sized(4))], domain="com.example"),
        with_function([helper.make_node("Evil", [], ["y"], domain="com.example")]),
    ],
)  # fmt: skip
def test_operators_of_other_domains_are_refused(onnx_model):
    assert "has operators of domain 'com.example'" in refusal(
        onnx_model.SerializeToString(), trust=True
    )
    refusal(onnx_model.SerializeToString())


@pytest.mark.parametrize("dims", [(2**27,), (2**14, 2**14), (2**60, 2**60), (-1,), (2**40, 0)])
def test_oversized_tensors_are_refused(dims):
    for onnx_model in (model(initializers=[sized(*dims)]), with_sparse_initializer(sized(*dims))):
        content = onnx_model.SerializeToString()
        assert "has a tensor of more than 67,108,864 elements" in refusal(content, trust=True)
    check_onnx(model(initializers=[sized(2**13, 2**13)]).SerializeToString(), "model.onnx")


def test_a_repeated_part_that_hides_a_size_is_refused():
    attribute = helper.make_attribute("value", sized(2**20))
    content = attribute.SerializeToString()
    repeated = content + onnx.AttributeProto(t=sized(2**20)).SerializeToString()
    assert list(onnx.AttributeProto.FromString(repeated).t.dims) == [2**20, 2**20]
    node = b"\x2a" + encoded(len(repeated)) + repeated
    graph = b"\x0a" + encoded(len(node)) + node
    assert "a part twice" in refusal(b"\x3a" + encoded(len(graph)) + graph)


def encoded(number):
    """Return a number as a varint."""
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def test_deep_nesting_is_checked_without_recursion():
    graph = b""
    for _ in range(3000):
        attribute = b"\x32" + encoded(len(graph)) + graph
        node = b"\x2a" + encoded(len(attribute)) + attribute
        graph = b"\x0a" + encoded(len(node)) + node
    check_onnx(b"\x3a" + encoded(len(graph)) + graph, "model.onnx")


def test_limits_on_the_file(monkeypatch):
    content = model().SerializeToString()
    monkeypatch.setattr(onnx_safety, "MOST_FIELDS", 10)
    assert "has more than 10 parts" in refusal(content)
    monkeypatch.setattr(onnx_safety, "LARGEST_FILE", 0)
    assert "is larger than 0 MB" in refusal(content)


def test_truncated_files_are_refused_except_between_parts():
    content = model().SerializeToString()
    sealed = seal(content)
    passing = [size for size in range(len(sealed) + 1) if accepts(sealed[:size])]
    assert len(sealed) in passing
    assert len(content) in passing
    assert len(passing) < 5
    for size in passing:
        onnx.ModelProto.FromString(sealed[:size])


def test_the_seal_is_a_metadata_entry_that_detects_every_change():
    sealed = seal(model().SerializeToString())
    check_onnx(sealed, "model.onnx")
    parsed = onnx.ModelProto.FromString(sealed)
    assert [entry.key for entry in parsed.metadata_props] == ["ase_student_sha256"]
    assert parsed.SerializeToString() == sealed
    onnx.checker.check_model(parsed)
    end = len(sealed) - onnx_safety._SEAL_SIZE
    for position in [*range(end), *range(len(sealed) - 64, len(sealed))]:
        changed = bytearray(sealed)
        changed[position] ^= 1
        assert "was damaged or changed after its export" in refusal(bytes(changed))


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"just some text\n", b"{}", b"PK\x03\x04" + bytes(100), b"\x80" * 99]
)
def test_files_of_other_formats_are_refused(content):
    assert "is not a readable ONNX file: " in refusal(content)


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_raise_value_error(content):
    accepts(content)
    # The same bytes as a graph, a node and a tensor.
    for key in (b"\x3a", b"\x0a", b"\x2a"):
        content = key + encoded(len(content)) + content
        accepts(b"\x3a" + encoded(len(content)) + content)


def test_random_changes_pass_or_raise_value_error():
    rng = random.Random(0)
    branches = {"then_branch": graph_with(sized(4)), "else_branch": graph_with(sized(3))}
    content = with_function([helper.make_node("If", ["x"], ["y"], **branches)]).SerializeToString()
    n_accepted = 0
    for _ in range(N_MUTATIONS):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(changed))
            stop = start + rng.randint(0, 3)
            changed[start:stop] = rng.randbytes(rng.randint(0, 3))
        n_accepted += accepts(bytes(changed))
    assert 0 < n_accepted < N_MUTATIONS


def test_random_changes_of_the_bundled_student_pass_or_raise_value_error():
    rng = random.Random(1)
    content = (student_folder("tiny") / "tiny.onnx").read_bytes()
    for _ in range(100):
        changed = bytearray(content[: -onnx_safety._SEAL_SIZE])
        for _ in range(rng.randint(1, 20)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        accepts(bytes(changed))
        accepts(bytes(changed[: rng.randrange(len(changed))]))


def test_products_by_broadcasting_are_not_bounded():
    """The module's docstring states this limit of the check: change both together."""
    column, row = (
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("column", (2**14, 1)), ("row", (1, 2**14)))
    )
    nodes = [helper.make_node("Add", ["column", "row"], ["sum"])]
    check_onnx(model(nodes, initializers=[column, row]).SerializeToString(), "model.onnx")
    assert onnx_safety.LARGEST_TENSOR < 2**28
    assert "does not bound" in onnx_safety.__doc__
