"""Droplets of liquids and cut-outs of molecular crystals."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.data import covalent_radii
from scipy.sparse.csgraph import connected_components

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from ase_student.data.hdf5 import Dataset, Structures
from ase_student.data.splits import split_of
from ase_student.distill.__main__ import main
from ase_student.distill.molecules.species import Species, embed, species_of
from ase_student.distill.sampling import liquid_boxes
from ase_student.distill.sampling.liquid_boxes import (
    DENSITIES,
    Box,
    LiquidSettings,
    are_apart,
    contract,
    cut_out,
    drawn_box,
    is_whole,
    packed_box,
)
from ase_student.distill.sampling.molecular_crystals import CRYSTALS, molecules_of_cell
from ase_student.distill.sampling.scan_molecules import Embedder


def species(smiles: str) -> Species:
    return species_of(smiles, 60)


def n_bound_parts(atoms: Atoms) -> int:
    """Return the number of molecules of a structure."""
    radii = covalent_radii[atoms.numbers]
    bound = atoms.get_all_distances() < 1.25 * (radii[:, None] + radii)
    return int(connected_components(bound, directed=False)[0])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small boxes and short dynamics."""
    monkeypatch.setattr(liquid_boxes, "BOX_ATOMS", (140, 150))
    monkeypatch.setattr(liquid_boxes, "STAGES", 5)
    monkeypatch.setattr(liquid_boxes, "EQUILIBRATION", 15)
    monkeypatch.setattr(liquid_boxes, "BATCH", 2)


@pytest.fixture
def waters() -> Box:
    """Return 27 waters in a box of water's density."""
    water = embed(species("O"), 1, 0)
    return packed_box([water] * 27, (27 * 30.0) ** (1 / 3), np.random.default_rng(0))


@pytest.mark.usefixtures("quick")
def test_droplets_are_whole_molecules_of_the_part(tmp_path: Path) -> None:
    command = "liquids --frames 4 --per-box 2 --atoms 20 40 --set linear --part train"
    written: list[Structures] = []
    for name in ("one.h5", "two.h5"):
        path = tmp_path / name
        options = ["--liquid", "O", "CO", "CC#N", "-o", str(path), "--max-atoms", "8"]
        assert main([*command.split(), *options]) == 0
        with Dataset(path) as dataset:
            written.append(dataset.read_structures())
    np.testing.assert_array_equal(written[0].positions, written[1].positions)
    assert len(written[0]) == 4
    assert set(written[0].sources) == {"liquid"}
    for index in range(4):
        atoms, names = written[0].atoms(index), written[0].molecules[index].split(".")
        assert not atoms.pbc.any()
        assert len(atoms) <= 40
        assert n_bound_parts(atoms) == len(names)
        assert {split_of(name) for name in names} == {"train"}


@pytest.mark.parametrize("name", DENSITIES)
def test_boxes_have_the_density_of_the_liquid(name: str) -> None:
    rng = np.random.default_rng(5)
    box = drawn_box([species(name)], [], Embedder(0), rng=rng)
    assert box is not None
    side = box.atoms.cell.lengths()[0] / liquid_boxes.EXPANSION
    density = box.atoms.get_masses().sum() * units._amu * 1e3 / (side * 1e-8) ** 3
    low, high = liquid_boxes.DENSITY_RANGE
    # The name of a liquid is its canonical SMILES.
    assert species(name).key == name
    assert low - 0.01 < density / DENSITIES[name] < high + 0.01
    assert is_whole(box, box.atoms)


def test_molecules_keep_their_geometry_when_the_cell_shrinks(waters: Box) -> None:
    unshrunk = waters.atoms.copy()
    contract(waters.atoms, waters.owners, 0.9)
    assert waters.atoms.cell.lengths()[0] == pytest.approx(0.9 * unshrunk.cell.lengths()[0])
    assert is_whole(waters, waters.atoms)
    for atoms_of_molecule in (slice(0, 3), slice(78, 81)):
        shifts = waters.atoms.positions[atoms_of_molecule] - unshrunk.positions[atoms_of_molecule]
        np.testing.assert_allclose(shifts, shifts[:1].repeat(3, axis=0), atol=1e-12)


def test_a_box_with_a_broken_bond_is_detected(waters: Box) -> None:
    waters.atoms.positions[4] += (2.0, 0, 0)
    assert not is_whole(waters, waters.atoms)


def test_a_droplet_holds_the_nearest_images(waters: Box) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        name, droplet, owners = cut_out(waters, waters.atoms, (30, 45), rng=rng)
        n = len(name.split("."))
        assert 10 <= n <= 15
        assert len(droplet) == 3 * n
        assert are_apart(droplet, owners)
        touching = droplet.copy()
        touching.positions[:3] += droplet.positions[3] - droplet.positions[0] + (0.9, 0, 0)
        assert not are_apart(touching, owners)
        # The droplet is about as large as a sphere of this volume at this density.
        radius = np.linalg.norm(droplet.positions - droplet.positions.mean(0), axis=1).max()
        assert radius < 2.2 * (n * 30.0 * 3 / (4 * np.pi)) ** (1 / 3)
        distances = droplet.get_all_distances()
        assert distances[np.triu_indices(len(droplet), 1)].min() > 0.3


@pytest.mark.parametrize("name", CRYSTALS)
def test_published_crystals_hold_whole_molecules(name: str) -> None:
    published = CRYSTALS[name]
    cell, owners = molecules_of_cell(published)
    molecule = embed(species(published.molecule), 1, 0, mmff=False)
    assert split_of(published.molecule) == "train"
    n_molecules = int(owners.max()) + 1
    n_atoms = len(cell) // n_molecules
    for k in range(n_molecules):
        molecule_in_cell = Atoms(cell.numbers[owners == k], cell.positions[owners == k])
        assert sorted(molecule_in_cell.numbers) == sorted(molecule.numbers)
        assert n_bound_parts(molecule_in_cell) == 1
        assert molecule_in_cell.get_all_distances()[np.triu_indices(n_atoms, 1)].min() > 0.95
    distances = cell.get_all_distances(mic=True)
    assert distances[owners[:, None] != owners].min() > 1.7


def test_cut_outs_of_crystals_are_written(tmp_path: Path) -> None:
    path = tmp_path / "crystals.h5"
    assert main(["crystals", "--frames", "3", "--crystal", "ice", "-o", str(path)]) == 0
    with Dataset(path) as dataset:
        structures = dataset.read_structures()
    assert len(structures) == 3
    for index in range(3):
        atoms = structures.atoms(index)
        assert structures.molecules[index] == ".".join(["O"] * (len(atoms) // 3))
        assert n_bound_parts(atoms) == len(atoms) // 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["liquids", "--frames", "0"], "--frames is 0; it must be at least 1"),
        (["liquids", "--per-box", "0"], "--per-box is 0"),
        (["liquids", "--atoms", "80", "60"], "--atoms are 80 and 60"),
        (["liquids", "--liquid", "C", "--part", "train"], "no liquid that was asked for"),
        (["crystals", "--frames", "0"], "--frames is 0"),
        (["crystals", "--crystal", "urea", "--part", "test"], "no crystal"),
    ],
)
def test_invalid_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "-o", str(tmp_path / "x.h5")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_settings_are_checked_without_the_command() -> None:
    with pytest.raises(ValueError, match="--atoms are 10 and 1000"):
        LiquidSettings(atoms=(10, 1000))
