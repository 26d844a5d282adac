"""Scans of torsions."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from ase_student.data.hdf5 import Dataset, Structures
from ase_student.data.splits import split_of
from ase_student.distill.__main__ import main
from ase_student.distill.molecules import species
from ase_student.distill.sampling.torsion_scans import torsion_of, torsions_of, turned


def embedded(smiles: str) -> species.Molecule:
    return species.embed(species.species_of(smiles, 60), 2, 0, mmff=False)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torsions") / "torsions.h5"
    command = "torsions --frames 40 --angles 8 --set flexible --part train --max-atoms 20"
    assert main([*command.split(), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def structures(output: Path) -> Structures:
    with Dataset(output) as dataset:
        return dataset.read_structures()


def test_the_given_number_of_frames_of_the_part_is_written(structures: Structures) -> None:
    assert len(structures) == 40
    assert set(structures.sources) == {"torsion"}
    assert {split_of(name) for name in structures.molecules} == {"train"}


def test_a_seed_gives_the_same_frames(output: Path, structures: Structures) -> None:
    repeated = output.with_name("again.h5")
    command = "torsions --frames 40 --angles 8 --set flexible --part train --max-atoms 20"
    assert main([*command.split(), "-o", str(repeated)]) == 0
    with Dataset(repeated) as dataset:
        np.testing.assert_array_equal(dataset.read_structures().positions, structures.positions)


@pytest.mark.parametrize("smiles", ["CCCC", "CC(=O)NC", "c1ccc(-c2ccccc2)cc1", "OO"])
def test_a_bond_is_rotated_by_a_full_turn(smiles: str) -> None:
    molecule = embedded(smiles)
    scan = turned(molecule, 12, np.random.default_rng(1))
    assert len(scan) == 12
    angles = [
        [torsion_of(atoms.positions, torsion) for atoms in scan]
        for torsion in torsions_of(molecule)
    ]
    # One of the torsions takes steps of 30°, a full turn in all.
    steps = (np.diff(angles, axis=1) + 180) % 360 - 180
    assert (np.abs(steps - 30).max(axis=1) < 3).any()


def test_no_bond_of_a_ring_or_beside_a_triple_bond_is_rotated() -> None:
    for smiles in ("c1ccccc1", "C1CCCCC1", "CC#N", "CC#CC"):
        with pytest.raises(species.UnsuitableError, match="no bond"):
            turned(embedded(smiles), 4, np.random.default_rng(0))


def test_butane_has_one_torsion_of_its_carbons() -> None:
    molecule = embedded("CCCC")
    (torsion,) = (t for t in torsions_of(molecule) if (molecule.numbers[list(t)] == 6).all())
    assert len(torsions_of(molecule)) == 3
    assert sorted(torsion) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "0"], "--frames is 0; it must be at least 1"),
        (["--angles", "0"], "--angles is 0; it must be at least 1"),
        (["--set", "linear", "--max-atoms", "3"], "no torsion of"),
    ],
)
def test_invalid_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["torsions", *options, "-o", str(tmp_path / "x.h5")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
