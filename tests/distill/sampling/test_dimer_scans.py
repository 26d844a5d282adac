"""Scans of complexes, each with its molecules alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip("h5py")
pytest.importorskip("rdkit")


from ase_student.calculator import StudentCalculator
from ase_student.data.hdf5 import Dataset, Structures
from ase_student.data.splits import split_of
from ase_student.distill.__main__ import main
from ase_student.distill.molecules import species
from ase_student.distill.sampling import dimer_scans
from ase_student.distill.sampling.dimer_scans import (
    FARTHEST,
    DimerScanSettings,
    scan_complexes,
    scan_distances,
)
from ase_student.distill.sampling.rigid import descended_rigidly, rotation
from ase_student.distill.sampling.scan_molecules import (
    AROMATIC,
    FLEXIBLE,
    HYDROGEN_BONDING,
    LINEAR,
)
from ase_student.potentials.base import Answer, Refusal, forces_of
from ase_student.potentials.registry import load_potential


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 40 complexes of small, linear and aromatic molecules."""
    path = tmp_path_factory.mktemp("dimers") / "dimers.h5"
    command = "dimers --complexes 40 --trimers 0.3 --set small linear aromatic --max-atoms 14"
    assert main([*command.split(), "--part", "train", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def structures(output: Path) -> Structures:
    with Dataset(output) as dataset:
        return dataset.read_structures()


def shortest_distance(structures: Structures, index: int) -> float:
    """Return the shortest distance between atoms of two molecules of a complex."""
    group = structures.fragments[index, 0]
    of_group = np.flatnonzero(structures.fragments[:, 0] == group)
    fragments = sorted(
        (i for i in of_group if structures.fragments[i, 1] >= 0),
        key=lambda i: structures.fragments[i, 1],
    )
    sizes = [len(structures.atoms(i)) for i in fragments]
    owners = np.repeat(np.arange(len(sizes)), sizes)
    distances = structures.atoms(index).get_all_distances()
    return float(distances[owners[:, None] != owners].min())


def test_every_complex_comes_with_its_single_molecules(structures: Structures) -> None:
    # Reading the file has checked that they agree in order and geometry.
    groups, fragments = structures.fragments.T
    assert (groups >= 0).all()
    assert (fragments < 0).sum() == 40
    for index in np.flatnonzero(fragments < 0):
        fragments_of_complex = np.flatnonzero((groups == groups[index]) & (fragments >= 0))
        names = sorted(structures.molecules[i] for i in fragments_of_complex)
        assert ".".join(names) == structures.molecules[index]
        n_atoms = sum(len(structures.atoms(i)) for i in fragments_of_complex)
        assert n_atoms == len(structures.atoms(index))
        kinds = {2: "dimer", 3: "trimer"}
        assert structures.sources[index] == kinds[len(fragments_of_complex)]
    assert set(structures.sources) == {"dimer", "trimer", "fragment"}


def test_molecules_are_of_the_part(structures: Structures) -> None:
    assert {split_of(names) for names in structures.molecules} == {"train"}


def test_distances_reach_from_contact_to_beyond_the_cutoff(
    structures: Structures,
) -> None:
    complexes = np.flatnonzero(structures.fragments[:, 1] < 0)
    distances = np.array([shortest_distance(structures, i) for i in complexes])
    # Trimers are scanned along one contact; another contact may be the shortest.
    assert distances.max() <= FARTHEST + 1e-6
    assert distances.min() > 1.2 - 1e-9
    assert (distances < 2.6).mean() > 0.2
    assert (distances > 3.5).mean() > 0.15


def test_forces_are_below_the_limit(structures: Structures) -> None:
    driver = load_potential("ultra-tiny", threads=1)
    all_atoms = [structures.atoms(i) for i in range(len(structures))]
    largest = max(float(np.abs(forces).max()) for forces in forces_of(driver, all_atoms))
    assert largest < 1.1 * dimer_scans.LARGEST_FORCE


def test_a_seed_gives_the_same_scans(output: Path, structures: Structures) -> None:
    repeated = output.with_name("again.h5")
    command = "dimers --complexes 40 --trimers 0.3 --set small linear aromatic --max-atoms 14"
    assert main([*command.split(), "--part", "train", "-o", str(repeated)]) == 0
    with Dataset(repeated) as dataset:
        np.testing.assert_array_equal(dataset.read_structures().positions, structures.positions)


def test_points_of_a_scan_get_farther_apart() -> None:
    water = species.embed(species.species_of("O", 3), 1, 0)
    positions = np.concatenate([water.conformers[0], water.conformers[0] + (0, 0, 3.0)])
    pair = species.combine([water, water], positions)
    for seed in range(20):
        scan = scan_distances(pair, positions, 5, rng=np.random.default_rng(seed))
        distances = [np.linalg.norm(p[:3, None] - p[3:], axis=-1).min() for p in scan]
        shortest = np.linalg.norm(positions[:3, None] - positions[3:], axis=-1).min()
        assert distances[0] < shortest + 1e-9
        assert (np.diff(distances[1:]) > 0).all()
        assert shortest - 1e-6 <= distances[1]
        assert distances[-1] <= FARTHEST + 1e-9
        for p in scan:
            np.testing.assert_allclose(
                np.linalg.norm(p[:3, None] - p[:3], axis=-1),
                np.linalg.norm(positions[:3, None] - positions[:3], axis=-1),
                atol=1e-10,
            )


def test_rigid_bodies_lower_the_energy_and_keep_their_geometry() -> None:
    driver = load_potential("ultra-tiny", threads=1)
    water = species.embed(species.species_of("O", 3), 1, 0)
    positions = np.concatenate([water.conformers[0], water.conformers[0] + (0.3, 0, 3.2)])
    atoms = Atoms(np.tile(water.numbers, 2), positions)
    owners = np.repeat([0, 1], 3)
    (relaxed,) = descended_rigidly([atoms], [owners], driver, n_steps=[80])
    for atoms_of_molecule in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(
            np.linalg.norm(relaxed[atoms_of_molecule, None] - relaxed[atoms_of_molecule], axis=-1),
            np.linalg.norm(
                positions[atoms_of_molecule, None] - positions[atoms_of_molecule], axis=-1
            ),
            atol=1e-9,
        )

    student = StudentCalculator("ultra-tiny", threads=1, guard="off")
    ends = [Atoms(atoms.numbers, positions_of_end) for positions_of_end in (positions, relaxed)]
    energy_before, energy_after = (result["energy"] for result in student.calculate_many(ends))
    assert np.abs(relaxed - positions).max() > 0.1
    assert energy_after < energy_before - 0.02
    (unmoved,) = descended_rigidly([atoms], [owners], driver, n_steps=[0])
    np.testing.assert_array_equal(unmoved, positions)


def test_the_angle_of_a_rotation_is_the_length_of_its_vector() -> None:
    turned = rotation(np.array([0, 0, np.pi / 2])) @ np.array([1.0, 0, 0])
    np.testing.assert_allclose(turned, [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("smiles", [*LINEAR, *AROMATIC, *FLEXIBLE, *HYDROGEN_BONDING])
def test_the_built_in_molecules_are_suitable(smiles: str) -> None:
    assert species.species_of(smiles, 60).n_atoms >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--complexes", "0"], "--complexes is 0; it must be at least 1"),
        (["--points", "0"], "--points is 0"),
        (["--trimers", "1.5"], "--trimers is 1.5; it must be from 0 to 1"),
        (["--bound", "-0.1"], "--bound is -0.1; it must be from 0 to 1"),
        (["--doubly-bonded", "2"], "--doubly-bonded is 2; it must be from 0 to 1"),
        (["--max-complex-atoms", "3"], "--max-complex-atoms is 3"),
        (["--max-atoms", "1"], "--max-atoms is 1"),
        (["--set", "aromatic", "--max-atoms", "3"], "the set 'aromatic' has no suitable molecule"),
        (["--set", "small", "--max-complex-atoms", "4"], "no two molecules"),
        (["--set", "small", "--dynamics", "nobody"], "nobody"),
    ],
)
def test_invalid_settings_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dimers", *options, "-o", str(tmp_path / "x.h5")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_relaxed_complexes_of_two_hydrogen_bonds_are_bound_strongly() -> None:
    acid = species.species_of("OC=O", 10)
    driver = load_potential("ultra-tiny", threads=1)
    student = StudentCalculator("ultra-tiny", threads=1, guard="off")

    def strongest(**shares: float) -> float:
        settings = DimerScanSettings(complexes=30, trimers=0.0, seed=4, **shares)
        columns = scan_complexes([[acid]], settings, driver).columns()
        all_atoms = [columns.atoms(i) for i in range(len(columns))]
        energies = np.array([results["energy"] for results in student.calculate_many(all_atoms)])
        groups, fragments = columns.fragments.T
        interactions = [
            energies[i] - energies[(groups == groups[i]) & (fragments >= 0)].sum()
            for i in np.flatnonzero(fragments < 0)
        ]
        return float(np.sort(interactions)[:5].mean())

    # -0.5 eV are 12 kcal/mol.
    assert strongest(doubly_bonded=1.0, bound=1.0) < min(-0.5, strongest() - 0.1)


def test_settings_are_checked_without_the_command() -> None:
    with pytest.raises(ValueError, match="--points is -1"):
        DimerScanSettings(points=-1)


def test_a_driver_without_forces_is_refused() -> None:
    class Unknown:
        name = "unknown"

        def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
            return [Refusal("nothing is known") for _ in structures]

    with pytest.raises(ValueError, match="no complex of 15 that were drawn can be used"):
        scan_complexes([[species.species_of("O", 3)]], DimerScanSettings(complexes=1), Unknown())
