import os
import re

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ase_student.data.hdf5 import write_dataset
from ase_student.data.readers.base import Frame, LeftOut
from ase_student.data.readers.opening import open_frames
from ase_student.data.structures import Labels, Structures
from ase_student.testing import structure

h5py = pytest.importorskip("h5py")

NAMES = ("water_dimer", "atom", "triclinic", "aspirin", "wire")
SOURCES = ("md", "", "crystal", "md", "wire")


def labelled():
    """Return structures with different labels; the second has no labels, the third has stress."""
    frames = []
    for index, (name, source) in enumerate(zip(NAMES, SOURCES, strict=True)):
        atoms = structure(name)
        forces = np.random.default_rng(index).normal(size=(len(atoms), 3))
        stress = np.arange(6.0) if name == "triclinic" else None
        frames.append((atoms, 10.0 * index, forces, stress, source))
    return frames


def write_hdf5(path):
    frames = labelled()
    with_labels = [0, 2, 3, 4]
    stress = np.zeros((4, 6))
    stress[1] = np.arange(6.0)
    forces = [frames[index][2] for index in with_labels]
    write_dataset(
        path,
        Structures.from_atoms([frame[0] for frame in frames], SOURCES, ["C"] * 5),
        Labels(
            structure_indices=np.array(with_labels),
            energies=np.array([frames[index][1] for index in with_labels]),
            splits=np.cumsum([0, *map(len, forces)]),
            forces=np.concatenate(forces).astype(np.float32),
            stress=stress,
            stress_mask=np.arange(4) == 1,
        ),
        metadata={"teacher": "me", "settings": {"a": 1}},
    )


def single_points():
    for index, (atoms, energy, forces, stress, source) in enumerate(labelled()):
        if index != 1:
            results = {"energy": energy, "forces": forces}
            if stress is not None:
                results["stress"] = stress
            atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms, source


def write_extxyz(path):
    for atoms, source in single_points():
        if source:
            atoms.info["source"] = source
        write(path, atoms, format="extxyz", append=True)


def write_reference_keys(path):
    for index, (atoms, energy, forces, stress, source) in enumerate(labelled()):
        if index != 1:
            atoms.info["REF_energy"] = energy
            atoms.arrays["REF_forces"] = forces
        if stress is not None:
            xx, yy, zz, yz, xz, xy = stress
            atoms.info["REF_stress"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        if source:
            atoms.info["config_type"] = source
        write(path, atoms, format="extxyz", append=True)


def write_database(path):
    with connect(path) as database:
        for atoms, source in single_points():
            database.write(atoms, **({"source": source} if source else {}))


WRITERS = {
    "data.h5": write_hdf5,
    "data.extxyz": write_extxyz,
    "reference.xyz": write_reference_keys,
    "data.db": write_database,
}


@pytest.fixture(params=WRITERS)
def path(request, tmp_path):
    path = tmp_path / request.param
    WRITERS[request.param](path)
    return path


def test_every_format_gives_the_same_structures(path):
    frames = open_frames(path)
    assert_array_equal(frames.sizes, [6, 1, 10, 21, 4])
    rows = frames.read(range(5))
    frames.close()
    assert [row.index for row in rows] == [0, 1, 2, 3, 4]
    assert isinstance(rows[1], LeftOut)
    assert not rows[1].invalid
    for index, (atoms, energy, forces, stress, source) in enumerate(labelled()):
        if index == 1:
            continue
        frame = rows[index]
        assert isinstance(frame, Frame)
        assert frame.source == source
        assert_array_equal(frame.atoms.numbers, atoms.numbers)
        assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-7)
        assert_allclose(frame.atoms.cell.array, atoms.cell.array, atol=1e-7)
        assert_array_equal(frame.atoms.pbc, atoms.pbc)
        assert frame.energy == energy
        assert_allclose(frame.forces, forces, atol=1e-6)
        if stress is None:
            assert frame.stress is None
        else:
            assert_allclose(frame.stress, stress)


@pytest.mark.parametrize("chosen", [[3], [0, 4], [2, 3], [], [0, 1, 2, 3, 4]])
def test_any_selection_of_structures_is_read(path, chosen):
    frames = open_frames(path)
    all_rows = frames.read(range(5))
    for row, index in zip(frames.read(chosen), chosen, strict=True):
        assert type(row) is type(all_rows[index])
        if isinstance(row, Frame):
            assert_array_equal(row.atoms.positions, all_rows[index].atoms.positions)
            assert_array_equal(row.forces, all_rows[index].forces)
    frames.close()


def test_labels_may_be_in_any_order(tmp_path):
    sizes = np.array([3, 1, 2, 5])
    atoms = [Atoms("H" * n, positions=3.0 * np.arange(3 * n).reshape(n, 3)) for n in sizes]
    order = np.array([2, 0, 3, 1])
    forces = [np.full((n, 3), float(i)) for i, n in enumerate(sizes)]
    write_dataset(
        tmp_path / "data.h5",
        Structures.from_atoms(atoms),
        Labels(
            order,
            order.astype(float),
            np.cumsum([0, *sizes[order]]),
            np.concatenate([forces[i] for i in order]).astype(np.float32),
        ),
    )
    frames = open_frames(tmp_path / "data.h5")
    for chosen in ([0, 1, 2, 3], [1, 3], [0, 3]):
        for frame, index in zip(frames.read(chosen), chosen, strict=True):
            assert frame.energy == index
            assert_array_equal(frame.forces, forces[index])
            assert frame.source == "unknown"
    frames.close()


def changed(path, column, change):
    """Replace a column of an HDF5 file by the result of a function of it; None removes it."""
    with h5py.File(path, "a") as file:
        data = file[column][:]
        del file[column]
        new_data = change(data)
        if new_data is not None:
            file[column] = new_data


def replaced(index, value):
    def change(data):
        data[index] = value
        return data

    return change


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("structures/positions", lambda d: None, "has no dataset 'structures/positions'"),
        ("structures/positions", lambda d: d[:-1], "structures/positions has 41 rows but"),
        ("structures/positions", lambda d: d[:, :2], "must be (rows, 3) floats"),
        ("structures/positions", lambda d: d.astype("S8"), "must be (rows, 3) floats"),
        ("structures/pbc", lambda d: d.astype(float), "must be (rows, 3) booleans"),
        ("structures/atomic_numbers_splits", replaced(0, 1), "must begin with 0"),
        ("structures/atomic_numbers_splits", replaced(2, 99), "[2] is 99"),
        ("structures/atomic_numbers_splits", replaced(-1, 41), "has 42 rows but structures/"),
        ("labels/forces_splits", replaced(2, -3), "[2] is -3"),
        ("labels/structure_indices", replaced(1, 5), "[1] names structure 5, but there are 5"),
        ("labels/energy", lambda d: d[:2], "labels/energy has 2 rows but there are 4"),
        ("labels/energy", lambda d: d.astype(int), "must be (rows) floats"),
    ],
)
def test_a_malformed_hdf5_file_is_refused(tmp_path, column, change, message):
    path = tmp_path / "data.h5"
    write_hdf5(path)
    changed(path, column, change)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        open_frames(path)
    assert str(caught.value).startswith("data.h5: ")


@pytest.mark.parametrize(
    ("column", "change", "left_out", "message"),
    [
        ("structures/positions", replaced((8, 1), np.nan), {2}, "structures/positions of atom 1"),
        (
            "structures/atomic_numbers",
            replaced(9, 0),
            {2},
            "is 0 for atom 2, which is not an atomic number",
        ),
        ("structures/atomic_numbers", replaced(9, 119), {2}, "is 119 for atom 2"),
        ("structures/cells", replaced((2, 1, 1), np.inf), {2}, "structures/cells is not finite"),
        ("structures/cells", replaced((2, 1), 0.0), {2}, "zero along a periodic axis"),
        ("structures/atomic_numbers_splits", replaced(2, 6), {1, 2}, "it goes from 6 to 6"),
        ("structures/atomic_numbers_splits", replaced(3, 2), {2, 3}, "it goes from 7 to 2"),
        ("labels/energy", replaced(1, np.nan), {2}, "labels/energy is not finite"),
        ("labels/forces", replaced((7, 2), np.inf), {2}, "labels/forces of atom 1 is not"),
        ("labels/stress", replaced((1, 2), np.nan), {2}, "labels/stress is not finite"),
        ("labels/forces_splits", replaced(2, 15), {2, 3}, "9 forces but structure 2 has 10"),
        ("labels/structure_indices", replaced(2, 2), {2, 3}, "[2] names structure 2 a second"),
    ],
)
def test_invalid_structures_of_hdf5_are_left_out(tmp_path, column, change, left_out, message):
    path = tmp_path / "data.h5"
    write_hdf5(path)
    changed(path, column, change)
    frames = open_frames(path)
    rows = frames.read(range(5))
    frames.close()
    assert {row.index for row in rows if isinstance(row, LeftOut)} == left_out | {1}
    reasons = [row.reason for row in rows if isinstance(row, LeftOut) and row.index in left_out]
    assert any(message in reason for reason in reasons)
    assert all(reason.startswith("data.h5: ") for reason in reasons)


def test_hdf5_without_labels_is_refused(tmp_path):
    write_dataset(tmp_path / "data.h5", Structures.from_atoms([structure("atom")]))
    with pytest.raises(ValueError, match="has no group 'labels'"):
        open_frames(tmp_path / "data.h5")


COLUMNS = [
    f"{group}/{name}"
    for group, names in {
        "structures": ("atomic_numbers", "atomic_numbers_splits", "positions", "cells", "pbc"),
        "labels": ("energy", "forces", "forces_splits", "structure_indices", "stress"),
    }.items()
    for name in names
]


@st.composite
def damage(draw):
    """Draw a function that damages a column."""
    kind = draw(st.sampled_from(["value", "dtype", "shape", "rows", "missing", "reversed"]))
    if kind == "value":
        value = draw(st.sampled_from([np.nan, np.inf, -1, 0, 7, 1000, 2**40]))
        place = draw(st.integers(0, 200))

        def change(data):
            with np.errstate(invalid="ignore"):
                data.reshape(-1)[place % data.size] = np.array(value).astype(data.dtype)
            return data

        return change
    if kind == "dtype":
        dtype = draw(st.sampled_from(["f4", "i2", "u1", "S3", "bool", "c8"]))
        return lambda data: data.astype(dtype)
    return {
        "shape": lambda data: data.reshape(-1, 1),
        "rows": lambda data: data[: len(data) // 2],
        "missing": lambda data: None,
        "reversed": lambda data: data[::-1],
    }[kind]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "data.h5"
    write_hdf5(path)
    return path


def open_and_read(path):
    """Return all structures of a file, or none and the error that refuses the file."""
    try:
        frames = open_frames(path)
    except ValueError as error:
        return [], str(error)
    try:
        return frames.read(range(len(frames.sizes))), ""
    except ValueError as error:
        return [], str(error)
    finally:
        frames.close()


def check_what_is_read(path):
    """Check that each structure is valid or left out with a reason, or that the file is refused."""
    rows, reason = open_and_read(path)
    assert rows or reason.startswith(path.name)
    assert "\n" not in reason
    assert [row.index for row in rows] == list(range(len(rows)))
    for row in rows:
        if isinstance(row, LeftOut):
            assert row.reason.startswith(path.name)
        else:
            assert np.isfinite(row.forces).all()
            assert row.forces.shape == row.atoms.positions.shape
            assert np.isfinite(row.atoms.positions).all()
            assert len(row.atoms) > 0


@given(column=st.sampled_from(COLUMNS), change=damage())
def test_any_damaged_column_is_reported(sound, tmp_path_factory, column, change):
    path = tmp_path_factory.mktemp("damaged") / "data.h5"
    path.write_bytes(sound.read_bytes())
    try:
        with np.errstate(all="ignore"):
            changed(path, column, change)
    except (TypeError, ValueError, Warning):
        return  # HDF5 itself refuses to write this.
    check_what_is_read(path)


# The index of a column's chunks is damaged: h5py cannot compute how much is stored.
@example(place=2019, content=b"\x00", cut=False)
@example(place=55544, content=b"\x80", cut=False)
@given(place=st.integers(0, 10**9), content=st.binary(min_size=1, max_size=30), cut=st.booleans())
def test_any_damaged_bytes_are_reported(sound, tmp_path_factory, place, content, cut):
    path = tmp_path_factory.mktemp("damaged") / "data.h5"
    intact = sound.read_bytes()
    place %= len(intact)
    remainder = b"" if cut else intact[place + len(content) :]
    path.write_bytes(intact[:place] + content + remainder)
    check_what_is_read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data.xyz: holds no frames"),
        ("3\n\nH 0 0 0\n", "frame 0 (line 1) has 3 atoms, but the file ends within it"),
        ("1\n\nH 0 0 0\n1\n\0#\nH 0 0 0\n", "line 5 holds a zero byte, which no text has"),
        ("water\n\nH 0 0 0\n", "frame 0 (line 1) must begin with its number of atoms"),
        ("1\n\nH 0 0 0\n-2\n\n", "frame 1 (line 4) must begin with its number of atoms"),
    ],
)
def test_a_malformed_extxyz_file_is_refused(tmp_path, text, message):
    path = tmp_path / "data.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        open_frames(path)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("1\nenergy=1.0\nQq 0 0 0", "cannot be read"),
        ("1\nenergy=1.0\nH 0 zero 0", "cannot be read"),
        ("0\nenergy=1.0", "has no atoms"),
        ("1\nenergy=nan\nH 0 0 0", "energy is not finite"),
        ("1\nenergy=1.0\nH 0 0 inf", "pos of atom 0 is not finite"),
        ("1\nenergy=much\nH 0 0 0", "cannot be read"),
        ("1\n\nH 0 0 0", "has neither energy nor forces"),
        ('1\nforces="1 2" energy=1.0\nH 0 0 0', "forces has shape (2,) for 1 atoms"),
    ],
)
def test_invalid_frames_of_extxyz_are_left_out(tmp_path, frame, message):
    path = tmp_path / "data.xyz"
    valid_frame = "1\nenergy=2.0\nH 0 0 0\n"
    path.write_text(f"{valid_frame}\n{frame}\n{valid_frame}")
    frames = open_frames(path)
    first, invalid, last = frames.read([0, 1, 2])
    assert first.energy == last.energy == 2.0
    assert message in invalid.reason
    assert invalid.reason.startswith("data.xyz: frame 1 (line 5)")


def test_a_malformed_database_is_refused(tmp_path):
    path = tmp_path / "data.db"
    write_database(path)
    path.write_bytes(path.read_bytes()[:5000] + os.urandom(40000))
    with pytest.raises(ValueError, match=r"^data\.db: is not an ASE database, or is damaged"):
        open_frames(path)
    (tmp_path / "no.db").write_text("hello")
    with pytest.raises(ValueError, match=r"^no\.db: is not an ASE database"):
        open_frames(tmp_path / "no.db")


def test_missing_files_folders_and_other_formats_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        open_frames(tmp_path / "missing.h5")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        open_frames(tmp_path)
    (tmp_path / "data.cif").write_text("")
    with pytest.raises(ValueError, match=r"files of structures end in \.h5"):
        open_frames(tmp_path / "data.cif")
