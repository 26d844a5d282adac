"""Structures from files, crystals and surfaces: displaced, strained, moved, and their split."""

from __future__ import annotations

from collections import Counter

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from ase_student.data.hdf5 import Dataset
from ase_student.data.splits import split_of
from ase_student.distill.__main__ import main
from ase_student.distill.sampling import builders, rattle
from ase_student.distill.sampling.settings import SamplingSettings

EMT = "ase.calculators.emt:EMT"


@pytest.mark.parametrize(
    ("text", "formula", "lengths"),
    [
        ("NaCl:rocksalt:5.64", "Na4Cl4", (5.64, 5.64, 5.64)),
        ("Cu", "Cu4", (3.61, 3.61, 3.61)),
        ("Mg:hcp:3.2:5.2", "Mg2", (3.2, 3.2, 5.2)),
        ("CaF2:fluorite:5.46", "Ca4F8", (5.46, 5.46, 5.46)),
    ],
)
def test_crystals_have_the_given_formula_and_cell(text, formula, lengths):
    (origin,) = builders.crystal(text)
    assert origin.atoms.get_chemical_formula(empirical=False, mode="metal") == formula
    np.testing.assert_allclose(origin.atoms.cell.lengths(), lengths)
    assert origin.atoms.pbc.all()
    assert "." not in origin.name


def test_surfaces_are_built_and_repeated():
    (origin,) = builders.surface("Cu:fcc111:1,2,3:8:3.7", (2, 1, 1))
    expected = fcc111("Cu", (1, 2, 3), a=3.7, vacuum=8).repeat((2, 1, 1))
    np.testing.assert_allclose(origin.atoms.positions, expected.positions)
    assert origin.atoms.pbc.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("build", "text", "message"),
    [
        (builders.crystal, "NaCl", "cannot be built by ASE: No suitable reference data"),
        (builders.crystal, "NaCl:foo:2", "has no known structure; available: sc, fcc"),
        (builders.crystal, "Cu:fcc:-1", "has the length '-1'; it must be a number above 0 Å"),
        (builders.crystal, "Cu:fcc:3:3:3", "has too many parts"),
        (builders.crystal, "Ga", "cannot be built by ASE"),
        (builders.surface, "Cu:fcc111", "must be 'element:face:2,2,4:vacuum'"),
        (builders.surface, "Cu:fcc11:1,1,1:5", "has no known face; available: fcc100"),
        (builders.surface, "Qq:fcc111:1,1,1:5", "has an unknown element"),
        (builders.surface, "Cu:fcc111:1,1:5", "needs a size of three whole numbers"),
        (builders.surface, "Cu:bcc111:1,1,1:5", "cannot be built by ASE"),
    ],
)
def test_an_invalid_description_is_refused_in_one_sentence(build, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(text)
    assert "\n" not in str(caught.value)


def test_files_may_hold_molecules_and_crystals(tmp_path):
    path = tmp_path / "a b.v2.extxyz"
    ase.io.write(path, [molecule("H2O"), bulk("Cu", cubic=True)])
    origins = builders.read_file(path)
    assert [origin.name for origin in origins] == ["a-b_v2#0", "a-b_v2#1"]
    assert [origin.atoms.pbc.any() for origin in origins] == [False, True]
    assert len({origin.digest for origin in origins}) == 2


@pytest.mark.parametrize(
    ("structures", "repeat", "message"),
    [
        ([molecule("H2O"), Atoms()], (1, 1, 1), "structure 1 of '.*' has no atoms"),
        ([molecule("H2O")], (1, 2, 1), "'.*' is not periodic along axis 1: it cannot be repeated"),
        ([Atoms("H", [[np.nan, 0, 0]])], (1, 1, 1), "positions or a cell that are not finite"),
        ([Atoms("X")], (1, 1, 1), "has atoms without an element"),
        ([Atoms("H", cell=[1, 1, 0], pbc=True)], (1, 1, 1), "its cell is not complete"),
    ],
)
def test_unsuitable_structures_are_refused(tmp_path, monkeypatch, structures, repeat, message):
    path = tmp_path / "some.xyz"
    path.touch()
    monkeypatch.setattr(ase.io, "read", lambda *_, **__: structures)
    with pytest.raises(ValueError, match=message):
        builders.read_file(path, repeat)


@pytest.mark.parametrize(
    ("name", "content"), [("a.xyz", "nonsense"), ("a.unknown", "x"), ("a.cif", "")]
)
def test_unreadable_files_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{name}' (cannot be read by ASE: .|has no structures)"):
        builders.read_file(path)


def test_strain_keeps_scaled_positions_and_the_thickness_of_a_slab():
    slab = fcc111("Cu", (2, 2, 3), vacuum=6)
    rng = np.random.default_rng(0)
    strained = rattle.strained(slab, 0.05, rng)
    np.testing.assert_allclose(strained.positions[:, 2], slab.positions[:, 2], atol=1e-12)
    np.testing.assert_allclose(strained.cell[2], slab.cell[2], atol=1e-12)
    assert np.abs(strained.cell[:2] - slab.cell[:2]).max() > 0.01
    crystal = bulk("NaCl", "rocksalt", 5.64)
    strained = rattle.strained(crystal, 0.05, rng)
    np.testing.assert_allclose(
        strained.get_scaled_positions(), crystal.get_scaled_positions(), atol=1e-12
    )
    deformation = np.linalg.solve(crystal.cell.array, strained.cell.array) - np.eye(3)
    np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
    assert 0.001 < np.abs(deformation).max() <= 0.05
    free = molecule("H2O")
    assert rattle.strained(free, 0.05, rng) == free


def test_few_structures_are_split_by_groups_and_many_by_structures():
    settings = SamplingSettings(md=40, displaced=10)
    few = rattle.groups_of(builders.crystal("Cu"), settings)
    assert Counter(group.displacement for group in few) == {0.02: 10, 0.05: 10, 0.1: 10, None: 4}
    assert sum(group.n_frames for group in few if group.displacement is None) == 40
    assert len({group.name for group in few}) == len(few)
    assert len({split_of(group.name) for group in few}) > 1
    many = builders._origins(
        "box", [molecule("H2O")] * builders.MIN_WHOLE_STRUCTURES, (1, 1, 1), "box"
    )
    names = {group.name for group in rattle.groups_of(many, settings)}
    assert names == {f"box#{i}" for i in range(builders.MIN_WHOLE_STRUCTURES)}


def test_only_groups_of_the_part_are_taken():
    settings = SamplingSettings(md=0, displaced=40, part="test")
    chosen = rattle.groups_of(builders.crystal("Cu"), settings)
    assert 0 < len(chosen) < 60
    assert {split_of(group.name) for group in chosen} == {"test"}


def test_foreign_structures_have_their_own_source(tmp_path):
    output = tmp_path / "out.h5"
    command = ["displace", "-o", str(output), "--crystal", "Cu", "--foreign", "--md=1"]
    assert main([*command, "--displaced=1", "--dynamics", EMT, "--steps=2"]) == 0
    with Dataset(output) as dataset:
        structures = dataset.read_structures()
    assert set(structures.sources) == {"foreign"}
    assert len(structures) == 4


def test_the_command_displaces_strains_and_moves(tmp_path, capsys):
    path = tmp_path / "start.traj"
    ase.io.write(path, [bulk("Cu", cubic=True), molecule("CH3OH")])
    output = tmp_path / "out.h5"
    command = [
        "displace",
        "-o",
        str(output),
        "--file",
        str(path),
        "--surface",
        "Cu:fcc111:1,1,3:6",
    ]
    options = ["--dynamics", EMT, "--md", "3", "--displaced", "2", "--steps", "5"]
    assert main([*command, *options, "--displacements", "0.02", "0.1"]) == 0
    assert "21 structures of 3 given structures" in capsys.readouterr().out
    with Dataset(output) as dataset:
        structures = dataset.read_structures()
        assert dataset.metadata["sampling"]["dynamics"] == EMT
    assert Counter(structures.sources) == {"displaced": 12, "md": 9}
    assert len({name.split("/")[0] for name in structures.molecules}) == 3
    crystals = [structures.cells[i] for i in range(len(structures)) if structures.pbc[i].all()]
    assert len(crystals) == 7
    assert all(0.0 < np.abs(cell - 3.61 * np.eye(3)).max() < 0.2 for cell in crystals)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no structures: give --file, --crystal or --surface."),
        (["--crystal", "Cu"], "choose a student or a teacher by --dynamics, or give --md 0."),
        (["--crystal", "Cu", "--strain", "1.5"], "--strain is 1.5; it must be at least 0 and"),
        (["--crystal", "Cu", "--displacements", "0"], "--displacements has 0; each must be above"),
        (["--crystal", "Cu", "--repeat", "2", "0", "1"], "--repeat is 0; it must be at least 1."),
        (["--file", "nowhere.xyz", "--md=0"], "no file of structures at 'nowhere.xyz'."),
        (["--crystal", "Cu", "--dynamics", "tiney"], "nothing named 'tiney' can drive dynamics"),
    ],
)
def test_mistakes_get_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["displace", "-o", "out.h5", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_duplicate_structures_are_left_out(tmp_path, capsys):
    path = tmp_path / "twice.extxyz"
    ase.io.write(path, [Atoms("H")] * 2)
    command = ["displace", "-o", str(tmp_path / "out.h5"), "--file", str(path)]
    assert main([*command, "--md", "0", "--displaced", "1"]) == 0
    assert "1 structures of 2 given structures" in capsys.readouterr().out
