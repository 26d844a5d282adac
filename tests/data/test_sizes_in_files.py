"""Files that claim more than they hold are refused before anything is allocated."""

import dataclasses
import shutil

import numpy as np
import pytest

from ase_student.checkpoint import load_student


@pytest.mark.parametrize(
    "sizes",
    [{"features": 2**40}, {"hidden": 2**62}, {"blocks": 2**40}, {"n_rbf": 10**30},
     {"element_channels": 2**36}, {"features": 2**20, "hidden": 2**20}],
    ids=str,
)  # fmt: skip
def test_networks_larger_than_their_tensors_are_refused(sizes):
    networks = pytest.importorskip("ase_student.networks")
    student = load_student("ultra-tiny")
    claimed = dataclasses.replace(student.architecture, **sizes)
    with pytest.raises(ValueError, match=r"the student has \d+ tensors with .* values, too few"):
        networks.build_network(dataclasses.replace(student, architecture=claimed))


@pytest.fixture
def dataset(tmp_path):
    h5py = pytest.importorskip("h5py")
    from ase.build import molecule

    from ase_student.data.hdf5 import write_dataset
    from ase_student.data.structures import Labels, Structures

    atoms = molecule("H2O")
    labels = Labels(np.array([0]), np.array([1.0]), np.array([0, 3]), np.zeros((3, 3)))
    path = tmp_path / "data.h5"
    write_dataset(path, Structures.from_atoms([atoms]), labels)
    shutil.copy(path, tmp_path / "other.h5")
    return path, h5py


def link_a_column(file, h5py):
    del file["labels/energy"]
    file["labels/energy"] = h5py.ExternalLink("other.h5", "/labels/energy")


def link_a_group(file, h5py):
    del file["labels"]
    file["labels"] = h5py.ExternalLink("other.h5", "/labels")


def link_within(file, h5py):
    file["elsewhere"] = file["labels/energy"][:]
    del file["labels/energy"]
    file["labels/energy"] = h5py.SoftLink("/elsewhere")


def store_elsewhere(file, h5py):
    del file["labels/energy"]
    file.create_dataset("labels/energy", (1,), "f8", external=[("raw.bin", 0, 8)])


def store_virtually(file, h5py):
    layout = h5py.VirtualLayout((1,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "labels/energy", (1,))
    del file["labels/energy"]
    file.create_virtual_dataset("labels/energy", layout)


def claim_terabytes(file, h5py):
    del file["structures/pbc"]
    file.create_dataset("structures/pbc", (2**40, 3), "?", chunks=(1000, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (link_a_column, "labels/energy is a link"),
        (link_a_group, "labels is a link"),
        (link_within, "labels/energy is a link"),
        (store_elsewhere, "labels/energy has its data in other files"),
        (store_virtually, "labels/energy has its data in other files"),
        (claim_terabytes, "structures/pbc claims 3,298,534,883,328 bytes, but 0 are stored"),
    ],
)
def test_data_sets_stored_outside_of_their_file_are_refused(dataset, change, message):
    from ase_student.data.hdf5 import Dataset

    path, h5py = dataset
    Dataset(path).close()
    with h5py.File(path, "a") as file:
        change(file, h5py)
    with pytest.raises(ValueError, match=message):
        Dataset(path)
