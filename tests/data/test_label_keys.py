"""Labels of one level of theory, under the names that files use."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from ase_student.data.readers.base import Frame
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.data.readers.opening import open_frames

FORCES = np.arange(9.0).reshape(3, 3)


def water(**keys):
    """Return a water molecule with labels under these keys: energies in info, forces in arrays."""
    atoms = molecule("H2O")
    for key, value in keys.items():
        (atoms.arrays if np.shape(value) == (3, 3) else atoms.info)[key] = value
    return atoms


def written(tmp_path, *frames, name="data.extxyz"):
    write(tmp_path / name, list(frames), format="extxyz")
    return tmp_path / name


def read(path, keys=None):
    frames = open_frames(path, keys)
    rows = frames.read(range(len(frames.sizes)))
    assert all(isinstance(frame, Frame) for frame in rows), rows
    return frames.keys, rows


@pytest.mark.parametrize(
    ("keys", "energy", "forces", "unused"),
    [
        ({"REF_energy": -7.0, "REF_forces": FORCES, "dft_energy": -1.0}, "REF_energy",
         "REF_forces", ("dft_energy",)),
        ({"Energy": -7.0, "force": FORCES}, "Energy", "force", ()),
        ({"free_energy": -7.0, "forces": FORCES}, "free_energy", "forces", ()),
        ({"dft_energy": -7.0, "dft_force": FORCES, "xtb_energy": -1.0, "xtb_forces": 0 * FORCES,
          "dipole": 1.0}, None, None, None),
        ({"energy_dft": -7.0, "forces_dft": FORCES}, "energy_dft", "forces_dft", ()),
    ],
)  # fmt: skip
def test_energy_and_forces_are_of_one_level_of_theory(tmp_path, keys, energy, forces, unused):
    chosen, (frame,) = read(written(tmp_path, water(**keys)))
    if unused is not None:
        assert (chosen.energy, chosen.forces, chosen.unused) == (energy, forces, unused)
        assert frame.energy == -7.0
        np.testing.assert_array_equal(frame.forces, FORCES)
    else:
        # Either level of theory, but the same for energy and forces.
        assert (frame.energy == -7.0) == bool(frame.forces.any())
        assert len(chosen.unused) == 2


def test_the_energy_of_a_calculator_is_not_paired_with_other_forces(tmp_path):
    atoms = water(REF_energy=-7.0, REF_forces=FORCES)
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0)
    chosen, (frame,) = read(written(tmp_path, atoms))
    assert frame.energy == -7.0
    assert chosen.unused == ("energy",)
    assert "not read, though they look like labels: 'energy'" in chosen.sentence("data.extxyz")


def test_given_keys_are_read(tmp_path):
    path = written(tmp_path, water(REF_energy=-7.0, REF_forces=FORCES, other_energy=-3.0))
    chosen, (frame,) = read(path, LabelKeys(energy="other_energy"))
    assert (frame.energy, frame.forces) == (-3.0, None)
    assert chosen.unused == ("REF_energy", "REF_forces")
    with pytest.raises(ValueError, match="no frame has 'dft' for its energy; there are: .*REF"):
        open_frames(path, LabelKeys(energy="dft"))


@pytest.mark.parametrize("key", ["virial", "virials", "REF_virial"])
def test_virials_become_stress(tmp_path, key):
    atoms = bulk("Cu", cubic=True)
    prefix = "REF_" if key.startswith("REF") else ""
    stress = np.arange(1.0, 7.0)
    xx, yy, zz, yz, xz, xy = -stress * atoms.get_volume()
    atoms.info[key] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    atoms.info[f"{prefix}Energy"] = -1.0
    atoms.arrays[f"{prefix}force"] = np.zeros((4, 3))
    _, (frame,) = read(written(tmp_path, atoms))
    np.testing.assert_allclose(frame.stress, stress, rtol=1e-6)


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = written(tmp_path, water(REF_energy=-7.0, REF_forces=FORCES))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    _, (frame,) = read(path)
    assert frame.energy == -7.0


def schnetpack(path, **metadata):
    with connect(path) as database:
        database.metadata = metadata
        database.write(molecule("H2O"), data={"energy": np.array([-7.0]), "forces": FORCES})


def test_units_of_schnetpack_are_converted(tmp_path):
    per_mol = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
    schnetpack(tmp_path / "a.db", _distance_unit="Ang", _property_unit_dict=per_mol)
    _, (frame,) = read(tmp_path / "a.db")
    assert frame.energy == pytest.approx(-7.0 * units.kcal / units.mol, rel=1e-12)
    np.testing.assert_allclose(frame.forces, FORCES * units.kcal / units.mol, rtol=1e-12)
    atomic = {"energy": "Hartree", "forces": "Hartree/Bohr"}
    schnetpack(tmp_path / "b.db", _distance_unit="Ang", _property_unit_dict=atomic)
    _, (frame,) = read(tmp_path / "b.db")
    np.testing.assert_allclose(frame.forces, FORCES * units.Hartree / units.Bohr, rtol=1e-12)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"_property_unit_dict": {"energy": "furlong", "forces": "eV/Ang"}}, "is in 'furlong'"),
        ({"_distance_unit": "Bohr", "_property_unit_dict": {"energy": "eV", "forces": "eV/Ang"}},
         "lengths are in 'Bohr'"),
    ],
)  # fmt: skip
def test_unknown_units_are_refused(tmp_path, metadata, message):
    schnetpack(tmp_path / "data.db", **metadata)
    with pytest.raises(ValueError, match=message):
        open_frames(tmp_path / "data.db")
