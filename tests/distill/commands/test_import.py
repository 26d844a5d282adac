"""Labelled structures of other programs."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write

pytest.importorskip("h5py")

from ase_student.data.hdf5 import Dataset
from ase_student.distill.__main__ import main

FORCES = np.arange(9.0).reshape(3, 3)
KCAL = units.kcal / units.mol


def labelled(index=0):
    """Return a water, one atom fixed, with labels that tell which one it is."""
    atoms = molecule("H2O")
    atoms.positions += index
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-7.0 - index, forces=FORCES + index)
    return atoms


def imported(tmp_path, *arguments):
    output = tmp_path / "out.h5"
    assert main(["import", *map(str, arguments), "-o", str(output)]) == 0
    return Dataset(output)


def failed(tmp_path, capsys, *arguments):
    """Return the one line that an import fails with, having written nothing."""
    assert main(["import", *map(str, arguments), "-o", str(tmp_path / "out.h5")]) == 2
    assert not (tmp_path / "out.h5").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def write_npz(path, **changes):
    arrays = {
        "nuclear_charges": np.array([8, 1, 1], dtype=np.uint8),
        "coords": np.array([molecule("H2O").positions + i for i in range(2)]),
        "energies": np.array([-10.0, -20.0]),
        "forces": np.stack([FORCES, FORCES + 1]),
        "old_energies": np.zeros(2),
        **changes,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize("suffix", ["xyz", "traj", "db"])
def test_every_kind_of_file(tmp_path, suffix):
    path = tmp_path / f"waters.{suffix}"
    if suffix == "db":
        with connect(path) as database:
            for index in range(3):
                database.write(labelled(index))
    else:
        write(path, [labelled(i) for i in range(3)], format="extxyz" if suffix == "xyz" else suffix)
    with imported(tmp_path, path, "--teacher", "PBE") as dataset:
        assert len(dataset) == dataset.n_labels == 3
        for index in range(3):
            labels = dataset.labels(index)
            assert labels["energy"] == -7.0 - index
            # ASE would give zero for the fixed atom.
            np.testing.assert_array_equal(labels["forces"], FORCES + index)
            positions = molecule("H2O").positions + index
            np.testing.assert_allclose(dataset.atoms(index).positions, positions, atol=1e-7)
        assert dataset.metadata["teacher"] == "PBE"
        (file,) = dataset.metadata["imported"]
        assert (file["file"], file["structures"], len(file["sha256"])) == (path.name, 3, 64)
        assert dataset.read_structures().sources == ("waters",) * 3


def test_npz_is_in_kcal_per_mol(tmp_path, capsys):
    path = write_npz(tmp_path / "water.npz")
    with imported(tmp_path, path) as dataset:
        assert dataset.labels(1)["energy"] == pytest.approx(-20.0 * KCAL, rel=1e-12)
        np.testing.assert_allclose(dataset.labels(0)["forces"], FORCES * KCAL, rtol=1e-6)
        np.testing.assert_array_equal(dataset.atoms(0).numbers, [8, 1, 1])
    said = capsys.readouterr().out
    assert "energies in kcal/mol, forces in kcal/mol/Ang" in said
    assert "'old_energies'" in said


def test_units_of_options(tmp_path):
    path = write_npz(tmp_path / "water.npz")
    options = ["--energy-unit", "Hartree", "--length-unit", "Bohr", "--max-force", "1e4"]
    with imported(tmp_path, path, *options) as dataset:
        assert dataset.labels(0)["energy"] == pytest.approx(-10.0 * units.Hartree, rel=1e-12)
        expected = FORCES * units.Hartree / units.Bohr
        np.testing.assert_allclose(dataset.labels(0)["forces"], expected, rtol=1e-6)
        expected = molecule("H2O").positions * units.Bohr
        np.testing.assert_allclose(dataset.atoms(0).positions, expected, rtol=1e-12)


def test_keys_and_virials(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    virial = np.diag([3.0, 2.0, 1.0])
    atoms.info.update(REF_energy=-5.0, REF_virial=virial, energy=99.0)
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    path = tmp_path / "salt.xyz"
    write(path, atoms, format="extxyz")
    with imported(tmp_path, path) as dataset:
        labels = dataset.labels(0)
        assert labels["energy"] == -5.0
        expected = -np.array([3, 2, 1, 0, 0, 0]) / atoms.get_volume()
        np.testing.assert_allclose(labels["stress"], expected, rtol=1e-12)


def test_what_cannot_be_trained_on_is_left_out(tmp_path, capsys):
    frames = [labelled(i) for i in range(3)]
    frames[1].calc.results.pop("forces")
    frames[2].calc.results["forces"] = FORCES * 1e6
    write(tmp_path / "some.xyz", frames, format="extxyz")
    with imported(tmp_path, tmp_path / "some.xyz") as dataset:
        assert dataset.n_labels == 1
    said = capsys.readouterr().out
    assert "1 without forces" in said
    assert "above the limit" in said


def test_errors(tmp_path, capsys):
    bare = tmp_path / "bare.xyz"
    write(bare, molecule("H2O"), format="extxyz")
    assert "bare.xyz: holds no labels" in failed(tmp_path, capsys, bare)
    path = write_npz(tmp_path / "a.npz", forces=None)
    assert "has no array 'forces'" in failed(tmp_path, capsys, path)
    path = write_npz(tmp_path / "b.npz", energies=np.array([np.nan, 1.0]))
    assert "structure 0: energies is not finite" in failed(tmp_path, capsys, path)
    (tmp_path / "c.traj").write_bytes(b"not a trajectory")
    assert "is no ASE trajectory" in failed(tmp_path, capsys, tmp_path / "c.traj")
    (tmp_path / "d.npz").write_bytes(b"PK not an archive")
    assert "is no NumPy archive" in failed(tmp_path, capsys, tmp_path / "d.npz")
