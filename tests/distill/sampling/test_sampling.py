"""Sampling: forces, temperature, no clashes, and the same structures for the same seed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.data import vdw_alvarez

from ase_student.data.hdf5 import Dataset
from ase_student.data.splits import split_of
from ase_student.data.structures import Structures
from ase_student.distill.__main__ import main
from ase_student.distill.molecules import species as molecules
from ase_student.distill.molecules.coverage import Coverage
from ase_student.distill.molecules.species import UnsuitableError, species_of
from ase_student.distill.recipes.options import command_from
from ase_student.distill.sampling import geometry, mmff, parallel
from ase_student.distill.sampling.mmff import sample_molecule
from ase_student.distill.sampling.sample import make_structures
from ase_student.distill.sampling.selection import choose_jobs
from ase_student.distill.sampling.settings import SamplingSettings
from ase_student.distill.steps import step_module
from ase_student.dynamics import bonds, langevin, rotations

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
    # RDKit's force field keeps distances between calls: compute several geometries in a row.
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
        positions = geometry.displaced(acetic_acid.conformers[0], sigma, rng)
        computed = forces(positions)
        for atom, axis in itertools.product((0, 3, 7), range(3)):
            shift = np.zeros_like(positions)
            shift[atom, axis] = step
            expected = (energy(positions - shift) - energy(positions + shift)) / (2 * step)
            assert computed[atom, axis] == pytest.approx(expected, abs=FORCE_TOLERANCE)


@pytest.mark.parametrize("temperature", [300.0, 1000.0])
def test_dynamics_has_the_given_temperature(temperature):
    # Independent harmonic atoms: <x²> = kT/k in every coordinate, whatever the masses.
    stiffness = 20.0
    numbers = np.array([1, 6, 8, 17] * 250)
    start = np.zeros((len(numbers), 3))
    rng = np.random.default_rng(1)
    steps = langevin.langevin(numbers, start, lambda x: -stiffness * x, temperature, rng)
    squares = [(langevin.positions_after(steps, 20) ** 2).mean() for _ in range(150)][30:]
    assert stiffness * np.mean(squares) / units.kB == pytest.approx(temperature, rel=1e-2)


def test_the_confining_wall_acts_only_outside(acetic_acid):
    start = acetic_acid.conformers[0]
    molecule_forces = molecules.mmff_forces(acetic_acid)
    forces = langevin.confined(molecule_forces, start)
    np.testing.assert_allclose(forces(start), molecule_forces(start), atol=1e-9)
    far = start.copy()
    far[0] += [30.0, 0, 0]
    pull = forces(far) - molecule_forces(far)
    assert pull[0, 0] < -1.0
    assert abs(pull[1:]).max() < abs(pull[0, 0])


@pytest.mark.parametrize("contact", [0.6, 1.0, 1.8])
def test_contacts_have_the_given_distance(contact):
    rng = np.random.default_rng(2)
    numbers = np.array([8, 1, 1, 8, 1, 1])
    for _ in range(20):
        positions = rng.normal(size=(6, 3))
        moving = np.arange(6) >= 3
        positions[~moving] -= positions[~moving].mean(0)
        positions[moving] -= positions[moving].mean(0)
        direction = geometry.random_direction(rng)
        shifted = geometry.shift_to_contact(
            numbers, positions, moving, direction=direction, contact=contact
        )
        np.testing.assert_array_equal(shifted[~moving], positions[~moving])
        distances = np.linalg.norm(shifted[moving][:, None] - shifted[~moving], axis=-1)
        radii = vdw_alvarez.vdw_radii[numbers]
        ratios = distances / (radii[moving][:, None] + radii[~moving])
        assert ratios.min() == pytest.approx(contact, abs=1e-9)


def test_rotations_are_orthogonal_with_determinant_one():
    rng = np.random.default_rng(3)
    for _ in range(10):
        rotation = rotations.random_rotation(rng)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-12)


def test_each_atom_may_have_its_own_temperature():
    stiffness = 20.0
    numbers = np.array([6] * 1000)
    temperatures = np.repeat([300.0, 900.0], 500)[:, None]
    steps = langevin.langevin(
        numbers,
        np.zeros((1000, 3)),
        lambda x: -stiffness * x,
        temperatures,
        np.random.default_rng(0),
    )
    squares = [(langevin.positions_after(steps, 20) ** 2).mean(axis=1) for _ in range(80)][20:]
    kinetic = stiffness * np.mean(squares, axis=0) / units.kB
    assert kinetic[:500].mean() == pytest.approx(300.0, rel=2e-2)
    assert kinetic[500:].mean() == pytest.approx(900.0, rel=2e-2)


def test_clashes_are_detected():
    numbers = np.array([6, 6])
    assert bonds.clashes(numbers, np.array([[0, 0, 0], [0, 0, 0.9]]))
    assert not bonds.clashes(numbers, np.array([[0, 0, 0], [0, 0, 1.0]]))
    assert not bonds.clashes(numbers[:1], np.zeros((1, 3)))


@pytest.mark.parametrize(("length", "clash"), [(0.9, True), (1.0, False)])
def test_clashes_with_periodic_images_are_detected(length, clash):
    cell, pbc = np.diag([length, 5.0, 5.0]), np.array([True, False, False])
    assert bonds.clashes(np.array([6]), np.zeros((1, 3)), cell, pbc) == clash
    assert not bonds.clashes(np.array([6]), np.zeros((1, 3)), cell, ~pbc)


def test_a_broken_bond_is_detected():
    numbers = np.array([6, 6, 1])
    bonded = np.array([[0, 0, 0], [1.5, 0, 0], [6.0, 0, 0]])
    assert not bonds.came_apart(numbers, bonded, bonded * 1.2)
    assert bonds.came_apart(numbers, bonded, bonded * 2.0)


def test_descent_goes_downhill_in_short_steps():
    start = np.array([[0.3, 0, 0], [100.0, 0, 0]])
    end = langevin.descended(start, lambda x: -20.0 * x, 5)
    assert 0 < end[0, 0] < 0.2
    assert start[1, 0] - end[1, 0] == pytest.approx(5 * langevin.LONGEST_DESCENT)


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


@pytest.mark.parametrize("smiles", ["O=C=O", "CN=C=S", "C=C=C"])
def test_molecules_wrong_in_mmff94_need_another_driver(smiles):
    species = molecules.species_of(smiles, 45)
    with pytest.raises(UnsuitableError, match=r"^cumulated double bonds, wrong in MMFF94$"):
        molecules.embed(species, 1, 0)
    assert len(molecules.embed(species, 1, 0, mmff=False).numbers) == species.n_atoms


def test_a_driver_allows_molecules_without_parameters():
    species = molecules.species_of(NOT_IN_MMFF, 45)
    assert len(molecules.embed(species, 1, 0, mmff=False).conformers) == 1


def test_stereoisomers_and_duplicates_are_counted_and_left_out():
    chosen, skipped = molecules.select_species(
        ["C/C=C/C", r"C/C=C\C", "OCC", "CCO", "CBr"], 45, None, seed=0
    )
    assert sorted(species.key for species in chosen) == ["CC=CC", "CCO"]
    assert skipped == {"duplicate": 2, "other element": 1}


def test_structures_of_a_molecule_do_not_depend_on_the_others():
    ethanol, acetonitrile = (molecules.species_of(smiles, 45) for smiles in ("CCO", "CC#N"))
    first = sample_molecule(ethanol, SamplingSettings(), [ethanol, acetonitrile])
    sample_molecule(acetonitrile, SamplingSettings(), [ethanol, acetonitrile])
    repeated = sample_molecule(ethanol, SamplingSettings(), [ethanol, acetonitrile])
    assert first.structures == repeated.structures
    assert first.sources == ["md"] * 3 + ["displaced"] * 2 + ["cluster", "contact"]
    other_seed = sample_molecule(ethanol, SamplingSettings(seed=1), [ethanol, acetonitrile])
    assert first.structures != other_seed.structures


def sampled(smiles, settings, processes=1, lists=None):
    jobs, partners, skipped = choose_jobs(smiles, settings, lists=lists)
    return make_structures(jobs, settings, partners, skipped=skipped, processes=processes)


def tables_agree(first: Structures, second: Structures) -> bool:
    return first.molecules == second.molecules and np.array_equal(first.positions, second.positions)


@pytest.mark.parametrize("dynamics", ["mmff94", "tiny"])
def test_processes_and_order_change_nothing(monkeypatch, dynamics):
    monkeypatch.setattr(parallel, "MMFF_PIECE", 2)
    monkeypatch.setattr(parallel, "DRIVEN_PIECE", 2)
    settings = SamplingSettings(md=1, displaced=1, cluster=1, contact=0, dynamics=dynamics, steps=5)
    first, report = sampled(SMILES[:3], settings)
    second, _ = sampled(SMILES[2::-1], settings, processes=2)
    assert tables_agree(first, second)
    assert report["n_molecules"] == 3


@pytest.mark.parametrize("dynamics", ["mmff94", "tiny"])
def test_every_kind_is_sampled_within_the_limits(dynamics):
    settings = SamplingSettings(max_atoms=20, max_cluster_atoms=24, dynamics=dynamics, steps=20)
    structures, report = sampled(SMILES, settings)
    assert set(report["sources"]) == {"md", "displaced", "cluster", "contact"}
    assert structures.molecules is not None
    assert structures.sources is not None
    assert np.diff(structures.splits).max() <= 24
    for i, (source, name) in enumerate(zip(structures.sources, structures.molecules, strict=True)):
        atoms = structures.atoms(i)
        assert not bonds.clashes(atoms.numbers, atoms.positions)
        assert ("." in name) == (source in ("cluster", "contact"))
        assert name == ".".join(sorted(name.split(".")))


@pytest.mark.parametrize("max_atoms", [3, 5])
def test_clusters_that_do_not_fit_are_counted(max_atoms):
    settings = SamplingSettings(max_cluster_atoms=max_atoms)
    water = molecules.species_of("O", max_atoms)
    frames = sample_molecule(water, settings, [water], n_times=8)
    assert frames.dropped == {"cluster: no room for a partner": 8}
    assert set(frames.sources) == {"md", "displaced"}


def test_the_command_writes_a_data_set(tmp_path, capsys):
    smiles = tmp_path / "some.smi"
    smiles.write_text(
        "# name\n" + "\n".join(f"{entry} {i}" for i, entry in enumerate(SMILES)) + "\nxx"
    )
    output = tmp_path / "structures.h5"
    command = ["structures", "-o", str(output), "--smiles", str(smiles), "--molecules", "3"]
    assert main([*command, "--seed", "5", "--md", "1", "--steps", "20"]) == 0
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
        (["--sequence", "ACX"], "the sequence 'ACX' has 'X'"),
        (["--sequence", "rna:"], "the sequence 'rna:' has no letters"),
        (["--sequence", "protein:A"], "'protein:A' has an unknown kind of sequence"),
        (["--dynamics", "tiney"], "nothing named 'tiney' can drive dynamics"),
        (["--peptides", "-2"], "--peptides is -2; it must not be negative."),
        (["--steps", "0"], "--steps is 0; it must be at least 1."),
        (["--oversample"], "--oversample needs --cover N."),
        (["--by-degree"], "--by-degree needs --cover N."),
        (["-o", "no/such/folder.h5"], "to write 'folder.h5' to."),
    ],
)
def test_mistakes_get_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["structures", "-o", "out.h5", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["test", "train"])
def test_only_molecules_of_one_part_are_sampled(part):
    smiles = [f"C{'C' * i}O{'N' * j}" for i in range(10) for j in range(8)]
    settings = SamplingSettings(part=part)
    jobs, partners, skipped = choose_jobs(smiles, settings, lists={"small": ["O", "CO", "CCO"]})
    keys = {job.species.key for job in jobs}
    assert all(split_of(key) == part for key in keys - {"O"})
    assert "O" in keys
    assert len(keys) > 2
    assert {partner.key for partner in partners} == keys
    assert skipped[f"not in the {part} part"] > 0


def test_short_lists_are_sampled_completely_and_more_often():
    settings = SamplingSettings(max_atoms=9, max_cluster_atoms=20)
    lists = {"small": ["O", "C"], "biomolecules": ["CCCC"], "peptides": ["CC(=O)NC"]}
    jobs, _, skipped = choose_jobs(["CCCC", "CCO", "CCN", "CCC"], settings, 2, lists=lists)
    n_times = {job.species.key: job.n_times for job in jobs}
    assert {key: n_times[key] for key in ("O", "C", "CCCC", "CNC(C)=O")} == {
        "O": 6, "C": 6, "CCCC": 4, "CNC(C)=O": 1,
    }  # fmt: skip
    assert len(n_times) == 5
    # Butane, propane and ethylamine are too large for molecules that are not on a list.
    assert skipped == {"more than 9 atoms": 3}


def test_rare_kinds_of_atoms_are_covered():
    alcohols = ["C" * n + "O" for n in range(3, 30)]
    rare = ["CP(Cl)Cl", "CSSC"]
    jobs, _, _ = choose_jobs([*alcohols, *rare], SamplingSettings(), cover=Coverage(2))
    taken = [job.species.key for job in jobs]
    # Any two alcohols have all kinds of atoms that the alcohols have.
    assert len(taken) == 4
    assert {"CP(Cl)Cl", "CSSC"} < set(taken)
    everything, _, _ = choose_jobs([*alcohols, *rare], SamplingSettings(), cover=Coverage(100))
    assert len(everything) == 12 + 2  # the rest have more than 45 atoms
    assert taken == [job.species.key for job in everything if job.species.key in taken]


def test_molecules_with_rare_kinds_of_atoms_are_sampled_more_often():
    smiles = ["CCCO", "CCCCO", "CCCCCO", "CP(Cl)Cl", "CSSC", "CCSSC"]
    jobs, _, _ = choose_jobs(smiles, SamplingSettings(), cover=Coverage(6, oversample=True))
    # O(C,H) is in three of them, P(C,Cl,Cl) in one, S(C,S) in two.
    assert {job.species.key: job.n_times for job in jobs} == {
        "CCCO": 2, "CCCCO": 2, "CCCCCO": 2, "CP(Cl)Cl": 6, "CSSC": 3, "CCSSC": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "step"),
    [
        ("--file=a.xyz", "displace"),
        ("--crystal=Cu", "displace"),
        ("--surface=Cu:fcc111:1,1,3:6", "displace"),
        ("--repeat=2", "displace"),
        ("--displacements=0.1", "displace"),
        ("--strain=0.1", "displace"),
        ("--foreign", "displace"),
        ("--continue=a.h5", "continue"),
        ("--frames=3", "continue"),
        ("--diatomics=60", "diatomics"),
        ("--elements=H", "diatomics"),
    ],
)
def test_options_that_moved_name_their_step(tmp_path, capsys, option, step):
    name, _, value = option.partition("=")
    with pytest.raises(SystemExit, match="2"):
        main(["structures", name, *([value] if value else []), "-o", str(tmp_path / "a.h5")])
    assert f"error: {name} has moved to the step '{step}'. " in capsys.readouterr().err
    table = {name.removeprefix("--"): True, "output": "a.h5"}
    with pytest.raises(ValueError, match=f"{name[2:]}' has moved to the step '{step}'"):
        command_from(table, step_module("structures").OPTIONS, tmp_path, find=Path)
    assert list(tmp_path.iterdir()) == []
    assert {name.removeprefix("--")} & {known.name for known in step_module(step).OPTIONS} or (
        name in ("--continue", "--diatomics")
    )


def test_kinds_of_atoms_may_depend_on_the_degree_of_neighbors():
    species = [species_of(chosen, 20) for chosen in ("C[N+](=O)[O-]", "NO", "CN(O)O")]
    assert [chosen.smiles for chosen, _ in Coverage(1).choose(species)] == ["C[N+](=O)[O-]", "NO"]
    assert [chosen for chosen, _ in Coverage(1, by_degree=True).choose(species)] == species


def test_a_resumed_run_gives_the_same_structures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "MMFF_PIECE", 2)
    smiles = tmp_path / "some.smi"
    smiles.write_text("\n".join(SMILES[:6]))
    folder = tmp_path / "b.h5.partial"

    def command(name, *options):
        arguments = ["--smiles", str(smiles), "--steps", "5", "--cluster", "0", *options]
        return main(["structures", "-o", str(tmp_path / name), *arguments])

    assert command("a.h5") == 0
    sample = mmff.sample_molecule
    calls = []

    def failing(species, *rest, **options):
        calls.append(species.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return sample(species, *rest, **options)

    monkeypatch.setattr(mmff, "sample_molecule", failing)
    assert command("b.h5") == 130
    assert sorted(file.name for file in folder.iterdir()) == ["000000.npz", "job.json"]
    capsys.readouterr()
    assert command("b.h5", "--seed", "1") == 2
    assert (
        "holds structures sampled with other molecules, seed: delete it" in capsys.readouterr().err
    )
    assert command("b.h5") == 0
    # The finished piece was not repeated; the interrupted one was.
    assert len(calls) == 4 + 4
    assert not folder.exists()
    with Dataset(tmp_path / "a.h5") as uninterrupted, Dataset(tmp_path / "b.h5") as resumed:
        assert tables_agree(uninterrupted.read_structures(), resumed.read_structures())


def die(_):
    os._exit(1)


def test_a_dead_process_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "MMFF_PIECE", 2)
    monkeypatch.setattr(parallel, "_sample_piece", die)
    smiles = tmp_path / "some.smi"
    smiles.write_text("\n".join(SMILES[:6]))
    output = tmp_path / "out.h5"
    command = ["structures", "-o", str(output), "--smiles", str(smiles), "--processes", "2"]
    assert main(command) == 2
    assert "a process that samples was killed, ran out of memory" in capsys.readouterr().err
    assert not output.exists()


def test_a_file_without_valid_smiles_is_refused(tmp_path, capsys):
    (tmp_path / "bad.smi").write_text("not\na\nmolecule\n")
    command = ["structures", "-o", str(tmp_path / "out.h5"), "--smiles", str(tmp_path / "bad.smi")]
    assert main(command) == 2
    assert "no structure could be sampled; left out: 3 unreadable SMILES" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["bad.smi"]


def test_an_empty_sample_is_refused_with_the_reasons(tmp_path, capsys):
    smiles = tmp_path / "some.smi"
    smiles.write_text(f"{NOT_IN_MMFF}\nCBr\n")
    assert main(["structures", "-o", str(tmp_path / "out.h5"), "--smiles", str(smiles)]) == 2
    assert capsys.readouterr().err == (
        "error: no structure could be sampled; "
        "left out: 1 other element, 1 molecule: no MMFF94 parameters.\n"
    )


def test_the_split_depends_only_on_molecule_and_seed():
    names = [f"C{'C' * i}O{'N' * j}" for i in range(60) for j in range(60)]
    parts = [split_of(name) for name in names]
    assert parts == [split_of(name) for name in names]
    assert parts != [split_of(name, seed=1) for name in names]
    share = {part: parts.count(part) / len(parts) for part in ("train", "validation", "test")}
    assert share["test"] == pytest.approx(0.08, abs=0.015)
    assert share["validation"] == pytest.approx(0.05, abs=0.015)
    # A change here would move test molecules into the training of students that exist.
    assert split_of("CCO") == "train"


def test_a_cluster_with_a_held_out_molecule_is_held_out():
    names = [f"C{'C' * i}O" for i in range(200)]
    by_part = {split_of(name): name for name in names}
    test, validation, train = by_part["test"], by_part["validation"], by_part["train"]
    assert split_of(f"{train}.{test}") == split_of(f"{test}.{validation}") == "test"
    assert split_of(f"{train}.{validation}") == "validation"
    assert split_of(f"O.O.{test}") == "test"
    assert split_of(f"O.{train}") == split_of("O.O") == split_of("O") == "train"
