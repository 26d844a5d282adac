"""SMILES of biomolecules, all neutral: nucleotides, sugars, peptides, cofactors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ase_student.distill.molecules.species import import_rdkit

#: Nucleobases, with a placeholder for the substituent.
BASES = {
    "A": "Nc1ncnc2c1ncn2{}",
    "G": "Nc1nc2c(ncn2{})c(=O)[nH]1",
    "C": "Nc1ccn({})c(=O)n1",
    "U": "O=c1ccn({})c(=O)[nH]1",
    "T": "Cc1cn({})c(=O)[nH]c1=O",
    "I": "O=c1[nH]cnc2c1ncn2{}",
}
#: β-D-ribose and 2-deoxyribose, with a placeholder for the substituent of the oxygen at 5'.
RIBOSE = "[C@@H]%10O[C@H](CO{})[C@@H](O)[C@H]%10O"
DEOXYRIBOSE = "[C@H]%10C[C@H](O)[C@@H](CO{})O%10"
#: Substituents of a base's nitrogen: hydrogen, a methyl group, and a sugar without and with a
#: protonated phosphate.
BASE_SUBSTITUENTS = (
    "[H]", "C",
    RIBOSE.format(""), RIBOSE.format("P(=O)(O)O"),
    DEOXYRIBOSE.format(""), DEOXYRIBOSE.format("P(=O)(O)O"),
)  # fmt: skip
OTHER_NUCLEOTIDES = (
    BASES["A"].format(RIBOSE.format("P(=O)(O)OP(=O)(O)O")),
    BASES["A"].format(RIBOSE.format("P(=O)(O)OP(=O)(O)OP(=O)(O)O")),
    BASES["A"].format("[C@@H]%10O[C@@H]%11COP(=O)(O)O[C@H]%11[C@H]%10O"),
    BASES["A"].format("[C@@H]%10O[C@H](CSC)[C@@H](O)[C@H]%10O"),
    f"O=c1[nH]cc({RIBOSE.format('')})c(=O)[nH]1",
    f"Cc1cn({RIBOSE.format('')})c(=O)nc1N",
    f"NC(=O)C1=CN({RIBOSE.format('')})C=CC1",
)
SUGARS = (
    "OCC(O)C=O", "OCC(=O)CO", "OCC(O)CO", "OCC(O)C(O)C=O", "OC1COCC1O",
    "OC[C@H]1OC(O)[C@H](O)[C@@H]1O", "OC[C@H]1OC(O)C[C@@H]1O", "O[C@@H]1COC(O)[C@H](O)[C@@H]1O",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O", "OC[C@@H](O)[C@H]1OC(O)[C@H](O)[C@H]1O",
    "OC[C@@H](O)[C@@H](O)[C@H](O)[C@@H](O)C=O", "OC[C@@H](O)[C@@H](O)[C@H](O)C(=O)CO",
    "OC[C@@H](O)[C@@H](O)[C@H](O)[C@H](O)CO", "OC[C@H]1O[C@](O)(CO)[C@@H](O)[C@@H]1O",
    "OCC1(O)OC[C@@H](O)[C@@H](O)[C@@H]1O", "C[C@@H]1OC(O)[C@H](O)[C@H](O)[C@H]1O",
    "OC[C@H]1OC(O)[C@H](N)[C@@H](O)[C@@H]1O", "CC(=O)N[C@@H]1C(O)O[C@H](CO)[C@@H](O)[C@@H]1O",
    "OC(=O)[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O", "OC[C@H]1OC(OC)[C@H](O)[C@@H](O)[C@@H]1O",
    "OC1O[C@H](COP(=O)(O)O)[C@@H](O)[C@H](O)[C@H]1O", "OC[C@H]1OC(=O)[C@H](O)[C@@H](O)[C@@H]1O",
    "OC1C(O)C(O)C(O)C(O)C1O", "OC1C(O)C(O)C(OP(=O)(O)O)C(O)C1O", "CC1CC(O)C(O)C(OC)O1",
    "OC[C@H]1O[C@H](O[C@]2(CO)O[C@H](CO)[C@@H](O)[C@@H]2O)[C@H](O)[C@@H](O)[C@@H]1O",
    "OC[C@H]1O[C@H](O[C@H]2[C@H](O)[C@@H](O)C(O)O[C@@H]2CO)[C@H](O)[C@@H](O)[C@@H]1O",
    "OC[C@H]1O[C@H](OC[C@H]2OC(O)[C@H](O)[C@@H](O)[C@@H]2O)[C@H](O)[C@@H](O)[C@@H]1O",
    "OC[C@H]1O[C@H](O[C@H]2O[C@H](CO)[C@@H](O)[C@H](O)[C@H]2O)[C@H](O)[C@@H](O)[C@@H]1O",
    "CC(=O)NC1C(O)CC(O)(C(O)=O)OC1C(O)C(O)CO",
)  # fmt: skip
COFACTORS = (
    # Lipid heads and tails.
    "NCCOP(=O)(O)O", "NC(COP(=O)(O)O)C(O)=O", "OCC(O)COP(=O)(O)O", "OCC(O)COP(=O)(O)OCCN",
    "COP(=O)(O)OC", "CCCC(=O)OCC(O)CO", "CCC(=O)OCC(OC(=O)CC)COP(=O)(O)OCCN", "CCCCCCCC(O)=O",
    "CCCCC=CCC=CCCC(O)=O", "CCCC=CC(O)C(N)CO", "CC(C)=CCCC(C)=CCCC(C)=CCO", "CC(=O)OCCN(C)C",
    # Cofactors, vitamins, messengers and their fragments.
    "NC(=O)c1cccnc1", "CN1C=CCC(C(N)=O)=C1", "Cc1cc2nc3c(=O)[nH]c(=O)nc-3n(C)c2cc1C",
    "Cc1cc2nc3c(=O)[nH]c(=O)nc-3n(CC(O)C(O)C(O)CO)c2cc1C", "Cc1ncc(CO)c(C=O)c1O",
    "Cc1ncc(COP(=O)(O)O)c(C=O)c1O", "Cc1ncc(CO)c(CN)c1O", "OC(=O)CCCCC1SCC2NC(=O)NC12",
    "OC(=O)CCCCC1CCSS1", "CC(C)(CO)C(O)C(=O)NCCC(O)=O", "CC(C)(CO)C(O)C(=O)NCCC(=O)NCCS",
    "OCC(O)C1OC(=O)C(O)=C1O", "Nc1nc(=O)c2nc(C)cnc2[nH]1", "COC1=C(OC)C(=O)C(C)=CC1=O",
    "C1=CC2=CC3=CC=C(N3)C=C3C=CC(=N3)C=C3C=CC(=N3)C=C1N2", "CC1=C(CCO)SCN1C", "CSCCC(N)C(O)=O",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CN1CC(=O)N=C1N", "NCCc1ccc(O)c(O)c1", "NCCc1c[nH]c2ccc(O)cc12",
    "CC(=O)NCCc1c[nH]c2ccc(OC)cc12", "NCCc1cnc[nH]1", "NCCCC(O)=O", "NCCCCN", "CC(=O)SCCNC(C)=O",
    "NCCC(=O)NC(Cc1cnc[nH]1)C(O)=O", "NC(CCC(=O)NC(CS)C(=O)NCC(O)=O)C(O)=O",
    "OC(=O)CC(O)(CC(O)=O)C(O)=O", "CC(=O)C(O)=O", "OC(=O)CCC(O)=O", "OC(=O)CC(O)C(O)=O",
    "C=C(OP(=O)(O)O)C(O)=O", "CC(=O)OP(=O)(O)O", "OP(=O)(O)OP(=O)(O)O",
)  # fmt: skip
#: Residues of the amino acids, which are joined head to tail.
RESIDUES = {
    "A": "N[C@@H](C)C(=O)",
    "R": "N[C@@H](CCCNC(=N)N)C(=O)",
    "N": "N[C@@H](CC(N)=O)C(=O)",
    "D": "N[C@@H](CC(=O)O)C(=O)",
    "C": "N[C@@H](CS)C(=O)",
    "Q": "N[C@@H](CCC(N)=O)C(=O)",
    "E": "N[C@@H](CCC(=O)O)C(=O)",
    "G": "NCC(=O)",
    "H": "N[C@@H](Cc1c[nH]cn1)C(=O)",
    "I": "N[C@@H]([C@@H](C)CC)C(=O)",
    "L": "N[C@@H](CC(C)C)C(=O)",
    "K": "N[C@@H](CCCCN)C(=O)",
    "M": "N[C@@H](CCSC)C(=O)",
    "F": "N[C@@H](Cc1ccccc1)C(=O)",
    "P": "N1CCC[C@H]1C(=O)",
    "S": "N[C@@H](CO)C(=O)",
    "T": "N[C@@H]([C@H](O)C)C(=O)",
    "W": "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)",
    "Y": "N[C@@H](Cc1ccc(O)cc1)C(=O)",
    "V": "N[C@@H](C(C)C)C(=O)",
}
OTHER_RESIDUES = (
    "N[C@@H](Cc1cnc[nH]1)C(=O)",
    "N[C@@H](COP(=O)(O)O)C(=O)",
    "N1C[C@H](O)C[C@H]1C(=O)",
    "N[C@@H](CCCCN(C)C)C(=O)",
)
#: RDKit's flavor of a sequence; 0 would be a peptide with free ends.
FLAVORS = {"rna": 2, "dna": 6}
MAX_RESIDUES = 3


def biomolecules() -> list[str]:
    """Return the SMILES of the built-in list."""
    nucleotides = [
        base.format(substituent) for base in BASES.values() for substituent in BASE_SUBSTITUENTS
    ]
    amino_acids = [capped([residue]) for residue in (*RESIDUES.values(), *OTHER_RESIDUES)]
    return [*nucleotides, *OTHER_NUCLEOTIDES, *SUGARS, *amino_acids, *COFACTORS]


def capped(residues: Iterable[str]) -> str:
    """Return the SMILES of a peptide between an acetyl and an N-methyl group."""
    return f"CC(=O){''.join(residues)}NC"


def random_peptides(n: int, seed: int) -> Iterator[str]:
    """Yield `n` capped peptides of one to three residues, drawn by the seed.

    A smaller `n` yields the first peptides of a larger `n`.
    """
    rng = np.random.default_rng(seed)
    letters = list(RESIDUES)
    for _ in range(n):
        # There are few short peptides; with equal probabilities they would be drawn repeatedly.
        length = rng.choice(np.arange(1, MAX_RESIDUES + 1), p=[0.1, 0.4, 0.5])
        yield capped(RESIDUES[letters[k]] for k in rng.integers(len(letters), size=length))


def smiles_of_sequence(text: str) -> str:
    """Return the SMILES of a sequence.

    Parameters
    ----------
    text : str
        Letters of a peptide, which gets capped ends, or ``'rna:ACGU'`` or ``'dna:ACGT'``, whose
        phosphates are protonated.

    Raises
    ------
    ValueError
        If the kind of sequence or a letter is unknown, or there are no letters.
    """
    kind, _, letters = text.rpartition(":")
    kind = kind.lower() or "peptide"
    alphabets = {"peptide": "".join(RESIDUES), "rna": "ACGU", "dna": "ACGT"}
    if kind not in alphabets:
        raise ValueError(
            f"'{text}' has an unknown kind of sequence; give 'ACDE' for a peptide, 'rna:ACGU' or "
            "'dna:ACGT'."
        )
    unknown = sorted(set(letters) - set(alphabets[kind]))
    if unknown or not letters:
        raise ValueError(
            f"the sequence '{text}' has "
            + (f"'{unknown[0]}', which is not one of" if unknown else "no letters; give some of")
            + f" '{alphabets[kind]}' ({kind})."
        )
    if kind == "peptide":
        return capped(RESIDUES[letter] for letter in letters)
    chem, _ = import_rdkit()
    from rdkit.Chem.MolStandardize import rdMolStandardize

    molecule = chem.MolFromSequence(letters, flavor=FLAVORS[kind])
    neutral: str = chem.MolToSmiles(rdMolStandardize.Uncharger().uncharge(molecule))
    return neutral
