"""Import of labelled structures from other programs."""

import shlex

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write

pytest.importorskip("h5py")

import h5py

from ase_student.data.hdf5 import Dataset
from ase_student.distill.__main__ import main
from ase_student.validation.__main__ import main as validate

FORCES = np.arange(9.0).reshape(3, 3)
KCAL = units.kcal / units.mol


def labelled(index=0):
    """Return a water molecule with one fixed atom and with labels that depend on its index."""
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
    """Run an import that fails and writes nothing; return its one line of error."""
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
def test_structures_are_imported_from_every_format(tmp_path, suffix):
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
            # ASE's get_forces would give zero for the fixed atom.
            np.testing.assert_array_equal(labels["forces"], FORCES + index)
            positions = molecule("H2O").positions + index
            np.testing.assert_allclose(dataset.atoms(index).positions, positions, atol=1e-7)
        assert dataset.metadata["teacher"] == "PBE"
        (file,) = dataset.metadata["imported"]
        assert (file["file"], file["structures"], len(file["sha256"])) == (path.name, 3, 64)
        assert dataset.read_structures().sources == ("waters",) * 3


def test_npz_files_are_in_kcal_per_mol(tmp_path, capsys):
    path = write_npz(tmp_path / "water.npz")
    with imported(tmp_path, path) as dataset:
        assert dataset.labels(1)["energy"] == pytest.approx(-20.0 * KCAL, rel=1e-12)
        np.testing.assert_allclose(dataset.labels(0)["forces"], FORCES * KCAL, rtol=1e-6)
        np.testing.assert_array_equal(dataset.atoms(0).numbers, [8, 1, 1])
    output = capsys.readouterr().out
    assert "energies in kcal/mol, forces in kcal/mol/Ang" in output
    assert "'old_energies'" in output


def test_units_may_be_given_as_options(tmp_path):
    path = write_npz(tmp_path / "water.npz")
    options = ["--energy-unit", "Hartree", "--length-unit", "Bohr", "--max-force", "1e4"]
    with imported(tmp_path, path, *options) as dataset:
        assert dataset.labels(0)["energy"] == pytest.approx(-10.0 * units.Hartree, rel=1e-12)
        expected = FORCES * units.Hartree / units.Bohr
        np.testing.assert_allclose(dataset.labels(0)["forces"], expected, rtol=1e-6)
        expected = molecule("H2O").positions * units.Bohr
        np.testing.assert_allclose(dataset.atoms(0).positions, expected, rtol=1e-12)


def test_reference_keys_and_virials_are_read(tmp_path):
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


def test_structures_unsuitable_for_training_are_left_out(tmp_path, capsys):
    frames = [labelled(i) for i in range(3)]
    frames[1].calc.results.pop("forces")
    frames[2].calc.results["forces"] = FORCES * 1e6
    write(tmp_path / "some.xyz", frames, format="extxyz")
    with imported(tmp_path, tmp_path / "some.xyz") as dataset:
        assert dataset.n_labels == 1
    output = capsys.readouterr().out
    assert "1 without forces" in output
    assert "1 force on atom 2 is 1.221e+07 eV/Å, above the limit of 60" in output


def write_grouped(path, layout, n=2):
    """Write n frames of water, and of OH in a second group, in one of the known layouts."""
    atomic = units.Hartree / units.Bohr
    with h5py.File(path, "w") as file:
        for group_name, atoms in (("mol", molecule("H2O")), ("other", molecule("OH"))):
            positions = np.array([atoms.positions + i for i in range(n)])
            energies = -10.0 - np.arange(n)
            forces = np.array([0.1 * (i + np.arange(3.0 * len(atoms))) for i in range(n)])
            forces = forces.reshape(positions.shape)
            if layout == "SPICE":
                group = file.create_group(group_name)
                group["atomic_numbers"] = atoms.numbers.astype(np.int16)
                group["conformations"] = positions / units.Bohr
                group["dft_total_energy"] = energies / units.Hartree
                group["dft_total_gradient"] = (-forces / atomic).astype(np.float32)
                group["smiles"] = ["O"]
            elif layout == "ANI-1x":
                group = file.create_group(group_name)
                group["atomic_numbers"] = atoms.numbers.astype(np.uint8)
                group["coordinates"] = positions.astype(np.float32)
                group["wb97x_dz.energy"] = energies / units.Hartree
                group["wb97x_dz.forces"] = forces / units.Hartree
                group["ccsd(t)_cbs.energy"] = np.full(n, np.nan)
            else:
                for i in range(n):
                    group = file.create_group(f"{group_name}/Geom-m1-i1-c{i}-opt")
                    group["atNUM"] = atoms.numbers
                    group["atXYZ"] = positions[i]
                    group["ePBE0+MBD"] = energies[i : i + 1]
                    group["totFOR"] = forces[i]
    return path


LAYOUTS = ("SPICE", "ANI-1x", "QM7-X")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_of_molecules_are_converted_from_their_units(tmp_path, layout):
    path = write_grouped(tmp_path / "foreign.hdf5", layout)
    with imported(tmp_path, path) as dataset:
        assert len(dataset) == dataset.n_labels == 4
        for index, name in enumerate(("H2O", "H2O", "OH", "OH")):
            row, atoms = index % 2, molecule(name)
            np.testing.assert_array_equal(dataset.atoms(index).numbers, atoms.numbers)
            expected = atoms.positions + row
            np.testing.assert_allclose(dataset.atoms(index).positions, expected, atol=1e-6)
            labels = dataset.labels(index)
            assert labels["energy"] == pytest.approx(-10.0 - row, rel=1e-12)
            expected = 0.1 * (row + np.arange(3.0 * len(atoms))).reshape(-1, 3)
            np.testing.assert_allclose(labels["forces"], expected, atol=1e-6)


def test_labels_that_were_not_computed_are_left_out(tmp_path, capsys):
    path = write_grouped(tmp_path / "ani.h5", "ANI-1x")
    with h5py.File(path, "r+") as file:
        file["mol/wb97x_dz.energy"][1] = np.nan
        file["mol/wb97x_dz.forces"][1] = np.nan
    with imported(tmp_path, path) as dataset:
        assert dataset.n_labels == 3
    assert "1 without energy and forces" in capsys.readouterr().out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("command", ["label", "train", "validate"])
def test_commands_name_the_layout_of_a_foreign_file_and_its_conversion(
    tmp_path, capsys, layout, command
):
    path = write_grouped(tmp_path / "foreign file.hdf5", layout)
    output = str(tmp_path / "out")
    if command == "validate":
        pytest.importorskip("chemiscope")
        assert validate([str(path), "-o", output]) == 2
    else:
        teacher = ["--teacher", "gfn2-xtb"] if command == "label" else []
        if command == "label":
            pytest.importorskip("tblite")
        assert main([command, str(path), *teacher, "-o", output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has no group 'structures'. It seems to be a file of {layout}; convert it: " in line
    # The printed command runs.
    words = shlex.split(line.partition("convert it: ")[2])
    assert words[:2] == ["ase-student", "distill"]
    assert main(words[2:]) == 0
    with Dataset(words[-1]) as dataset:
        assert dataset.n_labels == 4


def test_damaged_and_unknown_groups_are_refused(tmp_path, capsys):
    def error_after_change(key, data, layout="SPICE"):
        path = write_grouped(tmp_path / "foreign.h5", layout)
        with h5py.File(path, "r+") as file:
            del file[key]
            if data is not None:
                file[key] = data
        return failed(tmp_path, capsys, path)

    assert "/mol has no dataset 'dft_total_energy'" in error_after_change(
        "mol/dft_total_energy", None
    )
    message = error_after_change("mol/dft_total_gradient", np.zeros((2, 4, 3)))
    assert "has shape (2, 4, 3); it must be (2, 3, 3)" in message
    message = error_after_change("mol/dft_total_energy", h5py.ExternalLink("other.h5", "/x"))
    assert "/mol/dft_total_energy is a link, also to other files" in message
    message = error_after_change("mol/dft_total_energy", np.array([1.0, np.inf]))
    assert "structure 1: dft_total_energy is not finite" in message
    path = write_grouped(tmp_path / "foreign.h5", "SPICE")
    assert "leave out the options for units" in failed(
        tmp_path, capsys, path, "--energy-unit", "eV"
    )
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["x"] = np.zeros(3)
    message = failed(tmp_path, capsys, tmp_path / "odd.h5")
    assert "in an unknown layout (known are SPICE, ANI-1x, QM7-X)" in message
    write(tmp_path / "a.xyz", labelled(), format="extxyz")
    with imported(tmp_path, tmp_path / "a.xyz") as dataset:
        path = dataset.path.rename(tmp_path / "own.h5")
    assert "is already a data set" in failed(tmp_path, capsys, path)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("xyz", "an XYZ file"), ("traj", "an ASE trajectory"), ("db", "an ASE database"),
     ("json", "an ASE database"), ("npz", "a NumPy archive")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["label", "train"])
def test_files_of_other_formats_are_named(tmp_path, capsys, suffix, kind, command):
    path = tmp_path / f"waters.{suffix}"
    if suffix == "npz":
        write_npz(path)
    elif suffix in ("db", "json"):
        with connect(path) as database:
            database.write(labelled())
    else:
        write(path, labelled(), format="extxyz" if suffix == "xyz" else suffix)
    teacher = ["--teacher", "ase.calculators.emt:EMT"] if command == "label" else []
    assert main([command, str(path), *teacher, "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"It seems to be {kind}: " in line
    assert main(shlex.split(line.partition("converted by: ")[2])[2:]) == 0


def test_files_without_usable_labels_are_refused(tmp_path, capsys):
    unlabelled = tmp_path / "bare.xyz"
    write(unlabelled, molecule("H2O"), format="extxyz")
    assert "bare.xyz: holds no labels" in failed(tmp_path, capsys, unlabelled)
    named = molecule("H2O")
    named.info["dipole"] = 1.5
    write(unlabelled, named, format="extxyz")
    message = failed(tmp_path, capsys, unlabelled)
    assert "looked for names with 'energy' and 'forces'" in message
    assert "names in the file: 'dipole';" in message
    path = write_npz(tmp_path / "a.npz", forces=None)
    assert "has no array 'forces'" in failed(tmp_path, capsys, path)
    path = write_npz(tmp_path / "b.npz", energies=np.array([np.nan, 1.0]))
    assert "structure 0: energies is not finite" in failed(tmp_path, capsys, path)
    (tmp_path / "c.traj").write_bytes(b"not a trajectory")
    assert "is not an ASE trajectory" in failed(tmp_path, capsys, tmp_path / "c.traj")
    (tmp_path / "d.npz").write_bytes(b"PK not an archive")
    assert "is not a NumPy archive" in failed(tmp_path, capsys, tmp_path / "d.npz")
