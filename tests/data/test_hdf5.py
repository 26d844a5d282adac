"""The HDF5 layout: data are read as written, and errors are named."""

from __future__ import annotations

import builtins
import importlib
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_student.data import checks
from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.structures import Labels, Structures

h5py = pytest.importorskip("h5py")


def three_structures() -> Structures:
    return Structures.from_atoms(
        [
            Atoms("H2O", [[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]]),
            Atoms("He", cell=[3, 4, 5], pbc=True),
            Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=[9, 9, 20], pbc=[True, True, False]),
        ],
        sources=["md", "cluster", "md"],
        molecules=["O", "[He]", "Größe"],
    )


def two_labels() -> Labels:
    rng = np.random.default_rng(0)
    return Labels(
        structure_indices=np.array([2, 0]),
        energies=np.array([-2000.123456789, -1.5]),
        splits=np.array([0, 2, 5]),
        forces=rng.normal(size=(5, 3)).astype(np.float32),
        stress=np.array([[1.0, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]]),
        stress_mask=np.array([True, False]),
        atomic_energies=np.array([-1000.0, -1000.123456789, np.nan, np.nan, np.nan]),
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.h5"
    metadata = {"teacher": "none", "seed": 3, "versions": {"ase": "1"}, "nothing": None}
    write_dataset(
        path, three_structures(), two_labels(), metadata=metadata, failures={1: "no such element"}
    )
    return path


def test_data_are_read_as_written(path):
    structures, labels = three_structures(), two_labels()
    with Dataset(path) as dataset:
        assert (len(dataset), dataset.n_labels) == (3, 2)
        assert dataset.metadata == {"teacher": "none", "seed": 3, "versions": {"ase": "1"}}
        assert dataset.failures == {1: "no such element"}
        for i in range(3):
            assert dataset.atoms(i) == structures.atoms(i)
        assert dataset.atoms(-1) == structures.atoms(2)
        assert dataset.labels(1) is None
        labels_of_second = dataset.labels(2)
        assert labels_of_second is not None
        assert labels_of_second["energy"] == -2000.123456789
        np.testing.assert_array_equal(labels_of_second["forces"], labels.forces[:2])
        np.testing.assert_array_equal(labels_of_second["stress"], [1, 2, 3, 4, 5, 6])
        np.testing.assert_array_equal(labels_of_second["energies"], [-1000.0, -1000.123456789])
        labels_of_first = dataset.labels(0)
        assert labels_of_first is not None
        assert labels_of_first.keys() == {"energy", "forces"}
        with pytest.raises(IndexError):
            dataset.atoms(3)


def test_slices_of_columns_are_read(path):
    with Dataset(path) as dataset:
        part = dataset.read_structures(1, 3)
        assert (len(part), part.molecules) == (2, ("[He]", "Größe"))
        assert part.splits.tolist() == [0, 1, 3]
        assert part.atoms(1) == three_structures().atoms(2)
        labels = dataset.read_labels(1, 2)
        assert labels.structure_indices.tolist() == [0]
        assert labels.splits.tolist() == [0, 3]
        np.testing.assert_array_equal(labels.forces, two_labels().forces[2:])
        assert (labels.atomic_energies.shape, labels.n_atomic_energies) == ((3,), 0)
        assert len(dataset.read_structures(2, 1)) == 0
        assert len(dataset.read_labels(5, 9)) == 0


def test_taken_structures_keep_the_given_order():
    taken = three_structures().take([2, 0])
    assert taken.sources == ("md", "md")
    assert taken.atoms(0) == three_structures().atoms(2)
    assert taken.atoms(1) == three_structures().atoms(0)
    assert len(three_structures().take([])) == 0


def test_taken_labels_keep_the_given_order():
    labels = two_labels()
    taken = labels.take([1, 0])
    assert taken.structure_indices.tolist() == [0, 2]
    assert taken.energies.tolist() == [-1.5, -2000.123456789]
    assert taken.splits.tolist() == [0, 3, 5]
    np.testing.assert_array_equal(taken.forces, np.roll(labels.forces, 3, axis=0))
    np.testing.assert_array_equal(taken.stress, labels.stress[::-1])
    np.testing.assert_array_equal(taken.stress_mask, [False, True])
    np.testing.assert_array_equal(taken.atomic_energies, np.roll(labels.atomic_energies, 3))
    assert taken.n_atomic_energies == labels.n_atomic_energies == 1
    assert len(labels.take([])) == 0


def test_columns_have_the_documented_names_and_types(path):
    with h5py.File(path) as file:
        types = {name: str(data.dtype) for name, data in file["structures"].items()}
        assert types == {
            "atomic_numbers": "int64",
            "atomic_numbers_splits": "int64",
            "positions": "float64",
            "cells": "float64",
            "pbc": "bool",
            "sources": "object",
            "molecules": "object",
        }
        types = {name: str(data.dtype) for name, data in file["labels"].items()}
        assert types == {
            "atomic_energies": "float64",
            "energy": "float64",
            "forces": "float32",
            "forces_splits": "int64",
            "structure_indices": "int64",
            "stress": "float64",
            "stress_mask": "bool",
        }


def test_optional_columns_may_be_missing(path):
    with h5py.File(path, "a") as file:
        for name in ("structures/sources", "structures/molecules", "failures", "metadata"):
            del file[name]
        del file["labels/stress"], file["labels/stress_mask"], file["labels/atomic_energies"]
    with Dataset(path) as dataset:
        assert dataset.read_structures().sources is None
        assert dataset.read_labels().stress is None
        assert dataset.read_labels().atomic_energies is None
        assert dataset.metadata == {}
        assert dataset.failures == {}


def test_structures_without_labels_are_read(tmp_path):
    write_dataset(tmp_path / "bare.h5", three_structures())
    with Dataset(tmp_path / "bare.h5") as dataset:
        assert dataset.n_labels == len(dataset.read_labels()) == 0
        assert dataset.labels(0) is None


def edited(name, change):
    """Return an edit that replaces a dataset by a function of it."""

    def edit(file):
        data = file[name][:]
        del file[name]
        file[name] = change(data)

    return edit


def deleted(name):
    def edit(file):
        del file[name]

    return edit


def replaced(name, shape, dtype):
    """Return an edit that replaces a dataset by zeros of another shape and type."""

    def edit(file):
        del file[name]
        if shape is None:
            file[name] = h5py.Empty(dtype)
        else:
            file.create_dataset(name, shape, dtype)

    return edit


def with_value(index, value):
    def change(data):
        data[index] = value
        return data

    return change


BROKEN = {
    "rows": (
        edited("structures/positions", lambda x: x[:-1]),
        "positions has 5 rows but structures/atomic_numbers_splits ends at 6",
    ),
    "numbers": (
        edited("structures/atomic_numbers", lambda x: x[:-1]),
        "atomic_numbers has 5 rows but structures/atomic_numbers_splits ends at 6",
    ),
    "zero atoms": (
        edited("structures/atomic_numbers_splits", with_value(1, 0)),
        "structures/atomic_numbers_splits gives structure 0 no atoms",
    ),
    "split start": (
        edited("structures/atomic_numbers_splits", with_value(0, 1)),
        "structures/atomic_numbers_splits must begin with 0",
    ),
    "cells": (
        edited("structures/cells", lambda x: x[:2]),
        "structures/cells has 2 rows but there are 3 structures",
    ),
    "missing": (deleted("structures/pbc"), "has no dataset 'structures/pbc'"),
    "no structures": (deleted("structures"), "has no group 'structures'"),
    "shape": (
        edited("structures/positions", lambda x: x[:, :2]),
        "structures/positions has shape (6, 2)",
    ),
    "type": (
        edited("structures/atomic_numbers", lambda x: x.astype(float)),
        "type float64; it must be (rows) integers",
    ),
    "far cell": (
        edited("structures/cells", with_value((1, 2, 0), 1e300)),
        "structures/cells[1, 2, 0] = 1e+300 (structure 1) is not finite, or beyond 1e+08 Å",
    ),
    "nan position": (
        edited("structures/positions", with_value((4, 1), np.nan)),
        "structures/positions[4, 1] = nan (structure 2) is not finite",
    ),
    "element 0": (
        edited("structures/atomic_numbers", with_value(3, 0)),
        "structures/atomic_numbers[3] = 0 (structure 1) is not an atomic number",
    ),
    "infinite force": (
        edited("labels/forces", with_value((2, 0), np.inf)),
        "labels/forces[2, 0] = inf (label 1) is not finite",
    ),
    "nan energy": (
        edited("labels/energy", with_value(1, np.nan)),
        "labels/energy[1] = nan (label 1) is not finite",
    ),
    "index": (
        edited("labels/structure_indices", with_value(1, 3)),
        "labels/structure_indices[1] names structure 3, but there are 3 structures",
    ),
    "index twice": (
        edited("labels/structure_indices", with_value(1, 2)),
        "labels/structure_indices[1] names structure 2 a second time",
    ),
    "other molecule": (
        edited("labels/structure_indices", with_value(1, 1)),
        "labels/forces_splits gives label 1 3 forces but structure 1 has 1 atoms",
    ),
    "energies": (
        edited("labels/energy", lambda x: x[:1]),
        "labels/energy has 1 rows but there are 2 labels",
    ),
    "atomic energies": (
        edited("labels/atomic_energies", lambda x: x[:4]),
        "labels/atomic_energies has 4 rows but labels/forces_splits ends at 5",
    ),
    "other sum": (
        edited("labels/atomic_energies", with_value(1, -1000.0)),
        "labels/atomic_energies[0:2] of label 0 add up to -2000 eV but its energy is -2000.123457",
    ),
    "half of the atoms": (
        edited("labels/atomic_energies", with_value(3, -1.5)),
        "labels/atomic_energies[2:5] of label 1 add up to nan eV but its energy is -1.5 eV",
    ),
    "stress": (
        edited("labels/stress", with_value((0, 4), np.nan)),
        "labels/stress[0, 4] = nan (label 0) is not finite",
    ),
    "flat cell": (
        edited("structures/cells", with_value((2, 1), (18, 0, 0))),
        "structures/cells[2] (structure 2) does not span a cell, though structures/pbc says that "
        "x, y are periodic",
    ),
    "no cell": (
        edited("structures/cells", with_value(1, 0)),
        "structures/cells[1] (structure 1) does not span a cell",
    ),
    "numbers as sources": (
        edited("structures/sources", lambda x: np.arange(3)),
        "structures/sources has shape (3,) and type int64; it must be (rows) strings",
    ),
    "lists as sources": (
        replaced("structures/sources", (3,), h5py.vlen_dtype(np.int64)),
        "structures/sources has shape (3,) and type object; it must be (rows) strings",
    ),
    "a scalar": (
        replaced("structures/positions", (), np.float64),
        "structures/positions has shape () and type float64",
    ),
    "nothing": (
        replaced("structures/positions", None, np.float64),
        "structures/positions has shape None and type float64",
    ),
    "a group": (
        lambda file: (deleted("structures/pbc")(file), file.create_group("structures/pbc")),
        "has no dataset 'structures/pbc'",
    ),
    "a dataset": (replaced("labels", (3,), np.float64), "has no group 'labels'"),
    "no text": (
        edited("structures/molecules", lambda x: np.array([b"O", b"\xff", b"C"])),
        "structures/molecules[1] is not UTF-8",
    ),
    "empty splits": (
        edited("structures/atomic_numbers_splits", lambda x: x[:0]),
        "structures/atomic_numbers_splits must begin with 0",
    ),
    "descending": (
        edited("labels/forces_splits", with_value(1, 6)),
        "labels/forces_splits gives label 1 no atoms, it goes from 6 to 5",
    ),
    "failure": (
        edited("failures/structure_indices", with_value(0, -1)),
        "failures/structure_indices[0] names structure -1, but there are 3 structures",
    ),
    "reasons": (
        edited("failures/reasons", lambda x: np.array([b"a", b"b"])),
        "failures/reasons has 2 rows but there are 1 failures",
    ),
    "no reasons": (deleted("failures/reasons"), "has no dataset 'failures/reasons'"),
    "forces": (
        edited("labels/forces", lambda x: x[:4]),
        "labels/forces has 4 rows but labels/forces_splits ends at 5",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_dataset_and_index(path, case):
    edit, message = BROKEN[case]
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Dataset(path)
    assert str(caught.value).startswith("data.h5: ")
    assert "\n" not in str(caught.value)


def test_columns_may_be_checked_in_small_blocks(path, monkeypatch):
    monkeypatch.setattr(checks, "BLOCK_ROWS", 1)
    Dataset(path).close()
    with h5py.File(path, "a") as file:
        edited("labels/atomic_energies", with_value(slice(2, 5), -1.0))(file)
    with pytest.raises(ValueError, match=re.escape("atomic_energies[2:5] of label 1 add up to -3")):
        Dataset(path)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.98])
def test_a_truncated_file_is_refused(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"data\.h5: .*(not an HDF5 file|cut short)"):
        Dataset(path)


def test_flipped_bytes_are_detected(path):
    with h5py.File(path) as file:
        chunk = file["structures/positions"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    data[middle] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"data\.h5: cannot be read, it is damaged"):
        Dataset(path)


@settings(max_examples=40)
@given(st.data())
def test_damaged_bytes_are_read_or_refused_in_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    # Without texts: HDF5 itself can loop forever over damaged texts of variable length.
    write_dataset(path, replace(three_structures(), sources=None, molecules=None), two_labels())
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    message = "damaged.h5: nothing"
    try:
        with Dataset(path) as dataset:
            dataset.read_structures()
            dataset.read_labels()
            for index in range(len(dataset)):
                dataset.labels(index)
    except ValueError as error:
        message = str(error)
    assert re.fullmatch(r"damaged\.h5: [^\n]+", message)


def test_a_file_that_is_being_written_is_not_reported_as_damaged(path):
    fcntl = pytest.importorskip("fcntl")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=r"data\.h5: cannot be opened: "):
            Dataset(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data set at '.*nowhere\.h5'"):
        Dataset(tmp_path / "nowhere.h5")


def test_an_invalid_data_set_is_not_written(path):
    content = path.read_bytes()
    structures = three_structures()
    structures.positions[0] = np.nan
    with pytest.raises(ValueError, match=re.escape("data.h5: structures/positions[0, 0] = nan")):
        write_dataset(path, structures)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["data.h5"]


def test_missing_h5py_says_how_to_install_it(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=re.escape('pip install "ase-student[distill]"')):
        Dataset(path)


def test_the_modules_are_imported_without_h5py(monkeypatch):
    real = builtins.__import__

    def without_h5py(name, *args, **kwargs):
        assert name != "h5py"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    for name in ("checks", "hdf5", "hdf5_layout"):
        monkeypatch.delitem(sys.modules, f"ase_student.data.{name}", raising=False)
        importlib.import_module(f"ase_student.data.{name}")
