"""Sampling: the right forces, the right temperature, no clashes, the same for a seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import units
from ase.data import vdw_alvarez

from ase_student.dataset import Dataset, Structures
from ase_student.distill import molecules, sampling
from ase_student.distill.__main__ import main
from ase_student.distill.molecules import UnsuitableError
from ase_student.distill.split import split_of
from ase_student.distill.structures import Settings, make_structures, sample_molecule

pytest.importorskip("rdkit")
pytest.importorskip("h5py")

SMILES = ("CC(=O)O", "c1ccccc1O", "CCN", "CS(C)=O", "ClCC#N", "FC(F)F", "COP(=O)(OC)OC")
NOT_IN_MMFF = "FS(F)(F)(F)(F)F"
#: MMFF94 forces against finite differences of RDKit's energy, eV/Å.
FORCE_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def acetic_acid():
    return molecules.embed(molecules.species_of("CC(=O)O", 45), 2, 1)


def test_forces_are_minus_the_gradient_at_every_call(acetic_acid):
    # RDKit's force field remembers distances between calls: ask at several geometries in a row.
    _, all_chem = molecules.import_rdkit()
    forces = molecules.mmff_forces(acetic_acid)
    rng = np.random.default_rng(0)
    step = 1e-4

    def energy(positions):
        molecule = acetic_acid.rdkit.__copy__()
        molecule.GetConformer(0).SetPositions(positions)
        field = all_chem.MMFFGetMoleculeForceField(
            molecule, all_chem.MMFFGetMoleculeProperties(molecule)
        )
        return field.CalcEnergy() * molecules.EV_PER_KCAL_MOL

    for sigma in (0.0, 0.1, 0.02):
        positions = sampling.displaced(acetic_acid.conformers[0], sigma, rng)
        got = forces(positions)
        for atom, axis in itertools.product((0, 3, 7), range(3)):
            shift = np.zeros_like(positions)
            shift[atom, axis] = step
            expected = (energy(positions - shift) - energy(positions + shift)) / (2 * step)
            assert got[atom, axis] == pytest.approx(expected, abs=FORCE_TOLERANCE)


@pytest.mark.parametrize("temperature", [300.0, 1000.0])
def test_dynamics_has_the_temperature_asked_for(temperature):
    # Independent harmonic atoms: <x²> = kT/k in every coordinate, whatever the masses.
    stiffness = 20.0
    numbers = np.array([1, 6, 8, 17] * 250)
    start = np.zeros((len(numbers), 3))
    rng = np.random.default_rng(1)
    steps = sampling.langevin(numbers, start, lambda x: -stiffness * x, temperature, rng)
    squares = [(sampling.after(steps, 20) ** 2).mean() for _ in range(150)][30:]
    assert stiffness * np.mean(squares) / units.kB == pytest.approx(temperature, rel=1e-2)


def test_the_wall_only_acts_outside(acetic_acid):
    start = acetic_acid.conformers[0]
    inner = molecules.mmff_forces(acetic_acid)
    forces = sampling.confined(inner, start)
    np.testing.assert_allclose(forces(start), inner(start), atol=1e-9)
    far = start.copy()
    far[0] += [30.0, 0, 0]
    pull = forces(far) - inner(far)
    assert pull[0, 0] < -1.0
    assert abs(pull[1:]).max() < abs(pull[0, 0])


@pytest.mark.parametrize("contact", [0.6, 1.0, 1.8])
def test_contact_is_as_close_as_asked_for(contact):
    rng = np.random.default_rng(2)
    numbers = np.array([8, 1, 1, 8, 1, 1])
    for _ in range(20):
        positions = rng.normal(size=(6, 3))
        moving = np.arange(6) >= 3
        positions[~moving] -= positions[~moving].mean(0)
        positions[moving] -= positions[moving].mean(0)
        direction = sampling.random_direction(rng)
        shifted = sampling.shift_to_contact(numbers, positions, moving, direction, contact)
        np.testing.assert_array_equal(shifted[~moving], positions[~moving])
        distances = np.linalg.norm(shifted[moving][:, None] - shifted[~moving], axis=-1)
        radii = vdw_alvarez.vdw_radii[numbers]
        ratios = distances / (radii[moving][:, None] + radii[~moving])
        assert ratios.min() == pytest.approx(contact, abs=1e-9)


def test_rotations_are_proper():
    rng = np.random.default_rng(3)
    for _ in range(10):
        rotation = sampling.random_rotation(rng)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-12)


def test_clashes_are_seen():
    numbers = np.array([6, 6])
    assert sampling.clashes(numbers, np.array([[0, 0, 0], [0, 0, 0.9]]))
    assert not sampling.clashes(numbers, np.array([[0, 0, 0], [0, 0, 1.0]]))
    assert not sampling.clashes(numbers[:1], np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("not a molecule", "unreadable SMILES"),
        ("[Na+].[Cl-]", "salt or mixture"),
        ("C[NH3+]", "charged"),
        ("CBr", "other element"),
        ("[2H]O", "other element"),
        ("[CH3]", "radical"),
        ("C" * 40, "more than 45 atoms"),
    ],
)
def test_unsuitable_molecules_are_refused_with_a_reason(smiles, reason):
    with pytest.raises(UnsuitableError, match=f"^{reason}$"):
        molecules.species_of(smiles, 45)


def test_a_molecule_without_parameters_is_refused():
    with pytest.raises(UnsuitableError, match=r"^no MMFF94 parameters$"):
        molecules.embed(molecules.species_of(NOT_IN_MMFF, 45), 1, 0)


def test_stereoisomers_count_as_one_and_duplicates_are_counted():
    chosen, skipped = molecules.select_species(
        ["C/C=C/C", r"C/C=C\C", "OCC", "CCO", "CBr"], 45, None, 0
    )
    assert sorted(one.key for one in chosen) == ["CC=CC", "CCO"]
    assert skipped == {"duplicate": 2, "other element": 1}


def test_one_molecule_does_not_depend_on_the_others():
    one, two = (molecules.species_of(smiles, 45) for smiles in ("CCO", "CC#N"))
    alone = sample_molecule(one, Settings(), [one, two])
    sample_molecule(two, Settings(), [one, two])
    again = sample_molecule(one, Settings(), [one, two])
    assert alone.structures == again.structures
    assert alone.sources == ["md"] * 3 + ["displaced"] * 2 + ["cluster", "contact"]
    other_seed = sample_molecule(one, Settings(seed=1), [one, two])
    assert alone.structures != other_seed.structures


def tables_agree(one: Structures, two: Structures) -> bool:
    return one.molecules == two.molecules and np.array_equal(one.positions, two.positions)


def test_processes_and_order_do_not_matter():
    settings = Settings(md=1, displaced=1, cluster=1, contact=0)
    one, report = make_structures(SMILES[:3], settings, small_molecules=False)
    two, _ = make_structures(SMILES[2::-1], settings, processes=2, small_molecules=False)
    assert tables_agree(one, two)
    assert report["n_molecules"] == 3


def test_every_kind_is_sampled_within_the_limits():
    settings = Settings(max_atoms=20)
    structures, report = make_structures(SMILES, settings, small_molecules=False)
    assert set(report["sources"]) == {"md", "displaced", "cluster", "contact"}
    assert structures.molecules is not None
    assert structures.sources is not None
    assert np.diff(structures.splits).max() <= 20
    for i, (source, name) in enumerate(zip(structures.sources, structures.molecules, strict=True)):
        atoms = structures.atoms(i)
        assert not sampling.clashes(atoms.numbers, atoms.positions)
        assert ("." in name) == (source in ("cluster", "contact"))
        assert name == ".".join(sorted(name.split(".")))


@pytest.mark.parametrize("max_atoms", [3, 5])
def test_clusters_that_do_not_fit_are_counted(max_atoms):
    settings = Settings(max_atoms=max_atoms, small_factor=8)
    water = molecules.species_of("O", max_atoms)
    frames = sample_molecule(water, settings, [water], n_times=8)
    assert frames.dropped == {"cluster: no room for a partner": 8}
    assert set(frames.sources) == {"md", "displaced"}


def test_the_command_writes_a_data_set(tmp_path, capsys):
    smiles = tmp_path / "some.smi"
    smiles.write_text("# name\n" + "\n".join(f"{one} {i}" for i, one in enumerate(SMILES)) + "\nxx")
    output = tmp_path / "structures.h5"
    command = ["structures", "-o", str(output), "--smiles", str(smiles), "--small-factor", "0"]
    assert main([*command, "--molecules", "3", "--seed", "5", "--md", "1"]) == 0
    assert "1 unreadable SMILES" in capsys.readouterr().out
    with Dataset(output) as dataset:
        assert dataset.metadata["sampling"]["seed"] == 5
        assert dataset.metadata["n_molecules"] == 3
        assert sum(dataset.metadata["sources"].values()) == len(dataset)
        assert "--seed 5" in dataset.metadata["command"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["some.smi", "structures.h5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--molecules", "0"], "--molecules is 0; it must be at least 1."),
        (["--md", "-1"], "--md is -1; it must not be negative."),
        (["--smiles", "nowhere.smi"], "no file of SMILES at 'nowhere.smi'."),
        (["-o", "no/such/folder.h5"], "to write 'folder.h5' to."),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["structures", "-o", "out.h5", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_sample_is_told_with_the_reasons(tmp_path, capsys):
    smiles = tmp_path / "some.smi"
    smiles.write_text(f"{NOT_IN_MMFF}\nCBr\n")
    command = ["structures", "-o", str(tmp_path / "out.h5"), "--smiles", str(smiles)]
    assert main([*command, "--small-factor", "0"]) == 2
    assert capsys.readouterr().err == (
        "error: no structure could be sampled; "
        "left out: 1 other element, 1 molecule: no MMFF94 parameters.\n"
    )


def test_the_split_is_stable_and_by_molecule():
    names = [f"C{'C' * i}O{'N' * j}" for i in range(60) for j in range(60)]
    parts = [split_of(name) for name in names]
    assert parts == [split_of(name) for name in names]
    assert parts != [split_of(name, seed=1) for name in names]
    share = {part: parts.count(part) / len(parts) for part in ("train", "validation", "test")}
    assert share["test"] == pytest.approx(0.08, abs=0.015)
    assert share["validation"] == pytest.approx(0.05, abs=0.015)
    # A change here would move test molecules into the training of students that exist.
    assert split_of("CCO") == "train"


def test_a_cluster_is_held_out_if_any_of_its_molecules_is():
    names = [f"C{'C' * i}O" for i in range(200)]
    by_part = {split_of(name): name for name in names}
    test, validation, train = by_part["test"], by_part["validation"], by_part["train"]
    assert split_of(f"{train}.{test}") == split_of(f"{test}.{validation}") == "test"
    assert split_of(f"{train}.{validation}") == "validation"
    assert split_of(f"O.O.{test}") == "test"
    assert split_of(f"O.{train}") == split_of("O.O") == split_of("O") == "train"
