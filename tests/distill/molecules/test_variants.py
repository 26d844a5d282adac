"""Variants of molecules: valid, new, and with groups that no list holds."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem

from ase_student.data.splits import split_of
from ase_student.distill.molecules.coverage import Coverage
from ase_student.distill.molecules.species import species_of
from ase_student.distill.molecules.variants import FORBIDDEN, VALENCES, variants
from ase_student.distill.sampling.selection import choose_jobs
from ase_student.distill.sampling.settings import SamplingSettings

PARENTS = [
    "CCO", "CC(C)CC(=O)NC", "c1ccncc1CC", "Cc1c[nH]c2ccccc12", "CS(=O)(=O)Nc1ccccc1", "OP(O)(=O)OC",
    "C[N+](=O)[O-]", "CN=[N+]=[N-]", "C#CC=C", "C[C@H](N)C(=O)O", "O=[N+]([O-])c1ccc(CCl)cc1",
]  # fmt: skip


def drawn(count: int, seed: int = 0, parents: list[str] = PARENTS) -> list[str]:
    return list(islice(variants(parents, np.random.default_rng(seed)), count))


def test_variants_are_molecules_of_the_known_elements():
    for smiles in drawn(400):
        # Raises for charged molecules, radicals, mixtures and other elements.
        species_of(smiles, 1000)
        molecule = Chem.MolFromSmiles(smiles)
        assert Chem.MolToSmiles(molecule) == smiles
        for atom in molecule.GetAtoms():
            if atom.GetFormalCharge() == 0:
                assert atom.GetTotalValence() in VALENCES[atom.GetSymbol()], smiles
        for pattern in FORBIDDEN:
            assert not molecule.HasSubstructMatch(Chem.MolFromSmarts(pattern)), smiles


def test_variants_are_mostly_new_and_follow_the_seed():
    first = drawn(300)
    assert first == drawn(300)
    assert first != drawn(300, seed=1)
    known = {Chem.CanonSmiles(parent) for parent in PARENTS}
    assert len(set(first) - known) > 250


def test_variants_have_groups_that_no_parent_has():
    molecules = [
        Chem.MolFromSmiles(smiles) for smiles in drawn(2000, parents=["CCO", "CSC", "C=CCP"])
    ]
    for pattern in ("P=O", "PCl", "S=O", "SS", "C#N", "C=N", "CF", "NN", "N=N", "[R]", "C=S"):
        query = Chem.MolFromSmarts(pattern)
        assert any(molecule.HasSubstructMatch(query) for molecule in molecules), pattern


def test_charges_stay_side_by_side():
    pair = Chem.MolFromSmarts("[N,n;+;H0][O-]")
    for smiles in drawn(200, parents=["O=[N+]([O-])c1ccc(CCl)cc1"]):
        molecule = Chem.MolFromSmiles(smiles)
        charges = sum(atom.GetFormalCharge() != 0 for atom in molecule.GetAtoms())
        assert charges == 2 * len(molecule.GetSubstructMatches(pair)), smiles


def test_parents_without_variants_are_refused():
    with pytest.raises(ValueError, match="no molecules"):
        next(variants([], np.random.default_rng(0)))
    with pytest.raises(ValueError, match="almost no variant"):
        next(variants(["[OH-]"], np.random.default_rng(0)))


def test_jobs_may_be_variants_instead_of_molecules():
    settings = SamplingSettings(part="train", max_atoms=30)
    jobs, partners, skipped = choose_jobs(PARENTS, settings, n_variants=50)
    names = [job.species.key for job in jobs]
    assert len(set(names)) == len(names) == 50
    assert not set(names) & {species_of(parent, 1000).key for parent in PARENTS}
    assert {split_of(name) for name in names} == {"train"}
    assert all(job.species.n_atoms <= 30 for job in jobs)
    assert len(partners) == 50
    assert skipped["not in the train part"] > 0
    assert [job.species.key for job in choose_jobs(PARENTS, settings, n_variants=50)[0]] == names


def test_variants_are_selected_like_molecules():
    settings = SamplingSettings()
    all_jobs, _, _ = choose_jobs(PARENTS, settings, n_variants=200)
    covering_jobs, _, _ = choose_jobs(PARENTS, settings, cover=Coverage(1), n_variants=200)
    few_jobs, _, _ = choose_jobs(PARENTS, settings, n_molecules=7, n_variants=200)
    assert len(covering_jobs) < len(all_jobs) == 200
    assert {job.species.key for job in covering_jobs} < {job.species.key for job in all_jobs}
    assert few_jobs == all_jobs[:7]


def test_parents_of_another_part_have_no_variants():
    # No variant of a test molecule is made for training.
    tested = [parent for parent in PARENTS if split_of(species_of(parent, 1000).key) == "test"]
    assert tested
    with pytest.raises(ValueError, match="no molecules"):
        choose_jobs(tested, SamplingSettings(part="train"), n_variants=5)


def test_too_many_variants_are_refused():
    with pytest.raises(ValueError, match=r"only \d+ variants of 1 molecules were found"):
        choose_jobs(["C"], SamplingSettings(max_atoms=5), n_variants=200)
