import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from ase_student.backends import open_exported
from ase_student.checkpoint import (
    STUDENT_NAMES,
    _sealed,
    available_students,
    load_student,
    resolve_model,
    save_student,
    student_folder,
    student_name,
)
from ase_student.student import FORMAT_VERSION, UNITS, Architecture, Student

BUDGETS = {"original": 427_292, "tiny": 77_203, "ultra-tiny": 21_459}
ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)


def small_student():
    """Return a student whose tensors belong to no network."""
    rng = np.random.default_rng(0)
    tensors = {
        "b.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "a.bias": rng.normal(size=5),
        "scalar": np.array(0.1, np.float32),
    }
    shape = Architecture((1, 8), features=4, blocks=1, hidden=3, n_rbf=5, cutoff=4.7)
    metadata = {"teacher": "a teacher", "metrics": {"force_r2": 0.1 + 0.2}, "note": "Å"}
    return Student(shape, tensors, {1: -13.6 / 3, 8: -2041.3}, metadata)


def document_of(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["ase_student"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.safetensors"


# --- saved and loaded --------------------------------------------------------------------------


def test_round_trip(path):
    student = small_student()
    save_student(student, path)
    for model in (path, str(path)):
        loaded = load_student(model)
        assert loaded.architecture == student.architecture
        assert loaded.reference_energies == student.reference_energies
        assert loaded.metadata == student.metadata
        assert loaded.sha256 == student.sha256
        assert loaded.header() == student.header()
        assert loaded.tensors.keys() == student.tensors.keys()
        for name, tensor in student.tensors.items():
            assert loaded.tensors[name].dtype == tensor.dtype
            np.testing.assert_array_equal(loaded.tensors[name], tensor)


def test_properties_of_a_student():
    student = small_student()
    assert student.elements == (1, 8)
    assert student.cutoff == 4.7
    assert student.n_parameters == 12 + 5 + 1


def test_file_holds_the_documented_metadata(path):
    save_student(small_student(), path)
    document = document_of(path)
    assert document["format_version"] == FORMAT_VERSION
    assert document["family"] == "painn"
    assert document["elements"] == ["H", "O"]
    assert document["cutoff"] == 4.7
    assert document["units"] == UNITS
    assert document["reference_energies"] == {"H": -13.6 / 3, "O": -2041.3}
    assert document["architecture"]["features"] == 4
    assert document["metadata"]["teacher"] == "a teacher"


def test_the_same_student_makes_the_same_file(tmp_path):
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path in paths:
        save_student(small_student(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_views_are_saved_with_their_visible_values(path):
    student = small_student()
    tensors = {"b.weight": student.tensors["b.weight"].T[::2], "a.bias": np.ones(3)[::-1]}
    save_student(dataclasses.replace(student, tensors=tensors), path)
    np.testing.assert_array_equal(load_student(path).tensors["b.weight"], tensors["b.weight"])


def test_saving_refuses_other_names_and_keeps_old_files(path):
    student = small_student()
    with pytest.raises(ValueError, match=r"saved under a name that ends in '\.safetensors'"):
        save_student(student, path.with_suffix(".pt"))
    save_student(student, path)
    content = path.read_bytes()
    with pytest.raises(TypeError):
        save_student(dataclasses.replace(student, metadata={"not JSON": object()}), path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_first_generation_is_not_written(path):
    legacy = pytest.importorskip("ase_student.legacy")
    shape = legacy.LegacyArchitecture(hidden=4, n_blocks=1, n_rbf=2, max_z=8)
    with pytest.raises(ValueError, match="are read and exported, but not written"):
        save_student(Student(shape, {}, {}), path)
    assert not path.exists()


# --- the checksum ------------------------------------------------------------------------------


def test_checksum_does_not_depend_on_metadata_or_order():
    student = small_student()
    reversed_tensors = dict(reversed(student.tensors.items()))
    reversed_references = dict(reversed(student.reference_energies.items()))
    for equal_student in (
        dataclasses.replace(student, metadata={}),
        dataclasses.replace(student, tensors=reversed_tensors),
        dataclasses.replace(student, reference_energies=reversed_references),
    ):
        assert equal_student.sha256 == student.sha256
    assert re.fullmatch("[0-9a-f]{64}", student.sha256)


def changed_students():
    student = small_student()
    for name, tensor in student.tensors.items():
        changed = np.array(tensor)
        changed.flat[-1] = np.nextafter(changed.flat[-1], tensor.dtype.type(9.0))
        yield name, dataclasses.replace(student, tensors={**student.tensors, name: changed})
    renamed = {name.replace("b.", "c."): tensor for name, tensor in student.tensors.items()}
    yield "name", dataclasses.replace(student, tensors=renamed)
    reshaped = {**student.tensors, "b.weight": student.tensors["b.weight"].reshape(4, 3)}
    yield "shape", dataclasses.replace(student, tensors=reshaped)
    wider = {**student.tensors, "b.weight": student.tensors["b.weight"].astype(np.float64)}
    yield "dtype", dataclasses.replace(student, tensors=wider)
    references = {**student.reference_energies, 8: np.nextafter(-2041.3, 0.0)}
    yield "reference energy", dataclasses.replace(student, reference_energies=references)
    for name, value in {"cutoff": 4.8, "elements": (1, 9), "hidden": 4}.items():
        shape = dataclasses.replace(student.architecture, **{name: value})
        references = {1: -13.6 / 3, shape.elements[1]: -2041.3}
        yield name, Student(shape, student.tensors, references)


def test_checksum_depends_on_tensors_references_and_architecture():
    checksums = {name: student.sha256 for name, student in changed_students()}
    assert len({*checksums.values(), small_student().sha256}) == len(checksums) + 1


# --- bundled students --------------------------------------------------------------------------


def test_available_students_have_known_names():
    assert "tiny" in available_students()
    assert set(available_students()) <= set(STUDENT_NAMES) == set(BUDGETS)


@pytest.mark.parametrize("name", available_students())
def test_bundled_students_have_the_documented_elements_and_sizes(name):
    student = load_student(name)
    assert student.elements == ELEMENTS
    assert student.cutoff == 5.0
    assert student.n_parameters <= BUDGETS[name]
    assert student.reference_energies.keys() == set(ELEMENTS)
    assert student.metadata["teacher"]
    assert all(tensor.dtype == np.float32 for tensor in student.tensors.values())
    assert resolve_model(name) == student_folder(name) / "weights.safetensors"


@pytest.mark.parametrize("name", available_students())
def test_bundled_onnx_file_is_made_from_the_bundled_weights(name):
    info = open_exported(student_folder(name) / f"{name}.onnx", "cpu").info
    assert info.name == name
    assert info.dtype == "float32"
    assert info.weights_sha256 == load_student(name).sha256


@pytest.mark.parametrize("name", available_students())
def test_bundled_files_hold_no_paths_of_their_build(name):
    exported = open_exported(student_folder(name) / f"{name}.onnx", "cpu").info.metadata
    for metadata in (load_student(name).metadata, exported):
        assert re.findall(r"(?<![\w./])/\w+/[\w/.]+", json.dumps(metadata)) == []
    for file in student_folder(name).iterdir():
        assert b"site-packages" not in file.read_bytes()


# --- files that are no students ----------------------------------------------------------------


def test_unknown_names_and_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no student named 'tiney'; .* Did you mean 'tiny'\? "):
        load_student("tiney")
    with pytest.raises(FileNotFoundError, match=r"cannot read 'none\.safetensors'"):
        load_student("none.safetensors")
    with pytest.raises(FileNotFoundError, match="it is a folder without weights"):
        load_student(tmp_path)
    with pytest.raises(ValueError, match="an exported file has no trainable weights"):
        load_student(student_folder("tiny") / "tiny.onnx")


def test_a_folder_is_read_as_the_weights_in_it(tmp_path):
    student = load_student("tiny")
    save_student(student, tmp_path / "weights.safetensors")
    assert load_student(tmp_path).sha256 == student.sha256
    assert student_name(tmp_path) == tmp_path.name


def test_names_of_folders_may_contain_dots(tmp_path, monkeypatch):
    student = load_student("tiny")
    for name in ("w0.1", "w0.2"):
        save_student(student, tmp_path / name / "weights.safetensors")
        assert student_name(tmp_path / name) == name
        assert student_name(tmp_path / name / "weights.safetensors") == name
    (tmp_path / "weights.v1").mkdir()
    assert student_name(tmp_path / "weights.v1") == "weights.v1"
    monkeypatch.chdir(tmp_path / "w0.1")
    assert student_name(".") == "w0.1"


def test_a_folder_with_a_bundled_name_gives_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_student(load_student("ultra-tiny"), tmp_path / "tiny" / "weights.safetensors")
    with pytest.warns(UserWarning, match="in the folder 'tiny' here, write 'tiny/weights"):
        bundled = load_student("tiny")
    assert bundled.sha256 == load_student(student_folder("tiny")).sha256
    assert load_student("./tiny").sha256 == load_student("ultra-tiny").sha256
    monkeypatch.chdir(student_folder("tiny").parent)
    load_student("tiny")


def write(path, document, tensors=None):
    """Write a safetensors file with any document."""
    text = document if isinstance(document, str) else json.dumps(document)
    tensors = small_student().tensors if tensors is None else tensors
    save_file(tensors, path, metadata={"ase_student": text})


def without(*keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


def setting(value, *keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


DAMAGES = {
    "format version 2; this release reads version 1": setting(2, "format_version"),
    "unknown family of networks 'schnet'": setting("schnet", "family"),
    "'format_version'": without("format_version"),
    "'architecture'": without("architecture"),
    "'elements'": without("architecture", "elements"),
    "unexpected keyword argument 'color'": setting(1, "architecture", "color"),
    "no reference energy for O": without("reference_energies", "O"),
    "'Xx'": setting(1.0, "reference_energies", "Xx"),
    "the reference energy of O is nan": setting(float("nan"), "reference_energies", "O"),
    "'many'": setting("many", "reference_energies", "O"),
    "'list'": setting([1.0, 2.0], "reference_energies"),
    "elements must be ascending": setting([8, 1], "architecture", "elements"),
    "elements must be atomic numbers": setting([1, 800], "architecture", "elements"),
    "cutoff must be positive": setting(-1.0, "architecture", "cutoff"),
    "features must be even": setting(3, "architecture", "features"),
    "blocks must be at least 1": setting(0, "architecture", "blocks"),
    "not supported between": setting("5", "architecture", "hidden"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_wrong_documents_are_refused(path, message):
    save_student(small_student(), path)
    document = document_of(path)
    del document["sha256"]
    DAMAGES[message](document)
    write(path, _sealed(json.dumps(document), small_student().tensors))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_student(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", "null", "3", '"painn"'])
def test_metadata_that_are_no_document_are_refused(path, text):
    write(path, text)
    with pytest.raises(ValueError, match="incomplete student metadata"):
        load_student(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensors_must_be_finite(path, value):
    student = small_student()
    tensors = {**student.tensors, "a.bias": np.array([0.0, value])}
    save_student(dataclasses.replace(student, tensors=tensors), path)
    with pytest.raises(ValueError, match=r"tensor 'a\.bias' has values that are not finite"):
        load_student(path)


def test_tensors_must_be_floats(path):
    student = small_student()
    tensors = {**student.tensors, "a.bias": np.arange(3)}
    save_student(dataclasses.replace(student, tensors=tensors), path)
    with pytest.raises(ValueError, match=r"tensor 'a\.bias' is of int64; expected floats"):
        load_student(path)


def test_safetensors_of_other_programs_are_refused(path):
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="a safetensors file, but not a student"):
        load_student(path)
    save_file({"weight": np.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="a safetensors file, but not a student"):
        load_student(path)


def test_damaged_safetensors_are_refused(path):
    save_student(small_student(), path)
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[:40], content[:-1], content + b"x", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"not a (readable )?safetensors file") as caught:
            load_student(path)
        assert str(path) in str(caught.value)


def load_without_warnings(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_student(path)


def is_same(loaded, student):
    """Return whether students are equal in everything that a file holds."""
    return (
        loaded.sha256 == student.sha256
        and loaded.header() == student.header()
        and loaded.metadata == student.metadata
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_wrong_byte_is_detected(tmp_path_factory, position, flip):
    path = tmp_path_factory.mktemp("damaged") / "student.safetensors"
    student = small_student()
    save_student(student, path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= flip
    path.write_bytes(content)
    try:
        loaded = load_without_warnings(path)
    except ValueError as error:
        message = str(error)
    else:
        # Spaces between the parts of a file have no meaning.
        assert is_same(loaded, student)
        return
    assert message.startswith(str(path))


@pytest.mark.parametrize("size", [16, 512, 4096])
def test_zeroed_blocks_of_a_bundled_student_are_detected(path, size):
    content = student_folder("ultra-tiny").joinpath("weights.safetensors").read_bytes()
    generator = np.random.default_rng(size)
    for start in generator.integers(len(content) - size, size=40):
        damaged = bytearray(content)
        damaged[start : start + size] = bytes(size)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_without_warnings(path)


def test_a_file_without_a_hash_is_read_with_a_warning(path):
    student = small_student()
    save_student(student, path)
    document = document_of(path)
    del document["sha256"]
    write(path, document)
    with pytest.warns(UserWarning, match="without a hash, so that damage") as caught:
        loaded = load_student(path)
    assert caught[0].filename == __file__
    assert is_same(loaded, student)
    save_student(loaded, path)
    assert is_same(load_without_warnings(path), student)


@pytest.mark.parametrize("entry", ["sha256", "sha257"])
def test_an_unreadable_hash_is_refused(path, entry):
    save_student(small_student(), path)
    document = document_of(path)
    document[entry] = document.pop("sha256")[:-1] + "z"
    write(path, document)
    with pytest.raises(ValueError, match=f"damaged or changed: no student has '{entry}'"):
        load_student(path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"format_version": 1, "family": "painn", "architecture": '
     '{"elements": [1]}, "reference_energies": {"H": 1' + "0" * 400 + "}}"],
    ids=["lists", "objects", "number"],
)  # fmt: skip
def test_too_deep_or_too_large_metadata_are_refused_in_one_sentence(path, text):
    write(path, text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        load_student(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"elements": ()}, "elements must be ascending and unique"),
        ({"elements": (6, 1)}, "elements must be ascending and unique"),
        ({"elements": (1, 1)}, "elements must be ascending and unique"),
        ({"elements": (0, 1)}, "elements must be atomic numbers 1 to 118"),
        ({"elements": (1, 119)}, "elements must be atomic numbers 1 to 118"),
        ({"features": 0}, "features must be at least 1; given 0"),
        ({"features": 5}, "features must be even; given 5"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"n_rbf": 0}, "n_rbf must be at least 1"),
        ({"element_channels": 0}, "element_channels must be at least 1"),
        ({"message_channels": 0}, "message_channels must be at least 1"),
        ({"tensor_channels": -1}, "tensor_channels must not be negative"),
        ({"cutoff": 0.0}, "cutoff must be positive and at most 100 Å; given 0.0 Å"),
        ({"cutoff": float("nan")}, "cutoff must be positive and at most 100 Å; given nan Å"),
        ({"cutoff": float("inf")}, "cutoff must be positive"),
        ({"cutoff": 101.0}, "cutoff must be positive and at most 100 Å; given 101.0 Å"),
    ],
    ids=str,
)
def test_invalid_architectures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**{"elements": (1, 8), **arguments})
