"""Subsets of labelled files."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip("h5py")

from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.splits import parts_of, split_of
from ase_student.data.structures import Labels, Structures
from ase_student.distill.__main__ import main


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Return a file of 80 pairs of atoms, the label of each depending on its index."""
    atoms = [Atoms("H2", [(0, 0, 0), (0, 0, 1 + i)]) for i in range(80)]
    names = [f"molecule-{i}" for i in range(80)]
    sources = ["near" if i < 40 else "far" for i in range(80)]
    structures = Structures.from_atoms(atoms, sources, names)
    # Row 0 belongs to structure 79: labels and structures have different orders.
    order = np.arange(80)[::-1]
    forces = np.repeat(order, 2)[:, None] * np.ones(3, dtype=np.float32)
    labels = Labels(
        order,
        order.astype(float),
        structures.splits,
        forces.astype(np.float32),
        atomic_energies=np.repeat(order / 2, 2),
    )
    path = tmp_path / "all.h5"
    write_dataset(
        path, structures, labels, metadata={"teacher": "counting", "command": "/home/somebody"}
    )
    return path


def test_a_subset_holds_whole_labelled_structures_of_one_part(
    labelled: Path, tmp_path: Path
) -> None:
    output = tmp_path / "some.h5"
    arguments = ["subset", str(labelled), "-o", str(output), "--part", "train", "--per-source", "5"]
    assert main(arguments) == 0
    with Dataset(output) as dataset:
        assert len(dataset) == dataset.n_labels == 10
        assert dataset.metadata["teacher"] == "counting"
        assert "command" not in dataset.metadata
        structures = dataset.read_structures()
        for index in range(10):
            labels = dataset.labels(index)
            assert labels is not None
            number = int(labels["energy"])
            assert dataset.atoms(index).positions[1, 2] == 1 + number
            assert (labels["forces"] == number).all()
            assert (labels["energies"] == number / 2).all()
            assert structures.molecules[index] == f"molecule-{number}"
            assert split_of(f"molecule-{number}") == "train"


def test_a_subset_may_follow_a_split_by_structure(labelled: Path, tmp_path: Path) -> None:
    output = tmp_path / "some.h5"
    arguments = ["subset", str(labelled), "-o", str(output), "--split", "structure", "--seed", "2"]
    assert main(arguments) == 0
    with Dataset(output) as dataset:
        structures = dataset.read_structures()
        assert dataset.metadata["part"] == "test part of the split by structure with seed 2"
    assert len(structures) > 0
    assert set(parts_of(structures, "structure", 2)) == {"test"}


def test_mistakes_get_one_line(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "some.h5")
    assert main(["subset", str(labelled), "-o", output, "--per-source", "0"]) == 2
    assert "--per-source is 0" in capsys.readouterr().err
    assert main(["subset", str(tmp_path / "no.h5"), "-o", output]) == 2
    assert capsys.readouterr().err.count("\n") == 1
