"""Where molecules come from: all lists are sound, sequences become what they say."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("rdkit")

from ase_student.distill import biomolecules, molecules, smiles

LARGEST = 70


@pytest.mark.parametrize("name", list(smiles.SHORT_LISTS))
def test_every_molecule_of_a_short_list_is_suitable(name):
    listed = smiles.SHORT_LISTS[name]()
    found, skipped = molecules.select_species(listed, LARGEST, None, 0)
    assert skipped == {}
    assert len(found) == len(listed)
    for one in found[::12]:
        assert len(molecules.embed(one, 1, 0).numbers) == one.n_atoms


def test_the_nci_set_is_read():
    assert len(smiles.nci_smiles()) > 4_900


@pytest.mark.skipif(importlib.util.find_spec("chemicals") is None, reason="needs chemicals")
def test_the_set_of_chemicals_is_read():
    found = list(smiles.chemicals_smiles())
    assert len(found) > 70_000
    sample = found[::500]
    readable = [one for one in sample if molecules.import_rdkit()[0].MolFromSmiles(one) is not None]
    assert len(readable) > 0.98 * len(sample)


def test_missing_chemicals_are_told(monkeypatch):
    monkeypatch.setattr(smiles, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "ase-student\[chemicals\]"'):
        list(smiles.chemicals_smiles())


def test_random_peptides_go_on_where_fewer_end():
    many = list(biomolecules.random_peptides(40, 3))
    assert many[:10] == list(biomolecules.random_peptides(10, 3))
    assert many != list(biomolecules.random_peptides(40, 4))
    for one in many:
        molecules.species_of(one, 100)


@pytest.mark.parametrize(
    ("sequence", "formula"),
    [
        ("A", "C6H12N2O2"),
        ("GG", "C7H13N3O3"),
        ("rna:A", "C10H13N5O4"),
        ("RNA:AU", "C19H24N7O12P"),
        ("dna:T", "C10H14N2O5"),
        ("dna:GC", "C19H25N8O10P"),
    ],
)
def test_sequences_have_the_right_formula_and_no_charge(sequence, formula):
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    chem, _ = molecules.import_rdkit()
    found = chem.MolFromSmiles(biomolecules.smiles_of_sequence(sequence))
    assert CalcMolFormula(found) == formula


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"# only a comment\n\n", "has no SMILES"), (b"\xff\xfe\x00C", "is no text file of SMILES")],
)
def test_files_that_hold_no_smiles_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.smi"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        smiles.read_smiles(path)
