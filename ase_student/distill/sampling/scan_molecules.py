"""Molecules for scans and liquids: built-in lists, large sets, and a selection from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ase_student.data.splits import WATER, split_of
from ase_student.distill.molecules.smiles import LARGE_SETS, SHORT_LISTS, read_smiles
from ase_student.distill.molecules.species import (
    Molecule,
    Species,
    UnsuitableError,
    embed,
    generator,
    select_species,
)
from ase_student.dynamics.bonds import came_apart
from ase_student.dynamics.langevin import Positions
from ase_student.dynamics.trajectories import relaxed, trajectories
from ase_student.potentials.base import Potential

#: Small linear molecules and gases that are in no other list.
LINEAR = (
    "O=C=O", "N#N", "C#N", "C#C", "[C-]#[O+]", "O=C=S", "S=C=S", "N#CC#N", "CC#N", "CC#C",
    "C#CC#N", "C=C=C", "F", "Cl", "C=C", "O=S=O", "N=C=O", "CN=C=O", "[N-]=[N+]=O",
)  # fmt: skip
#: Aromatic molecules: heterocycles, substituted and fused rings, bowls.
AROMATIC = (
    "c1ccccc1", "Cc1ccccc1", "Oc1ccccc1", "Nc1ccccc1", "N#Cc1ccccc1", "O=[N+]([O-])c1ccccc1",
    "COc1ccccc1", "C=Cc1ccccc1", "Fc1ccccc1", "Fc1c(F)c(F)c(F)c(F)c1F", "Clc1ccc(Cl)cc1",
    "O=Cc1ccccc1", "NC(=O)c1ccccc1", "c1ccncc1", "c1cnccn1", "c1cncnc1", "c1ncncn1", "c1ccnnc1",
    "c1cc[nH]c1", "c1ccoc1", "c1ccsc1", "c1c[nH]cn1", "c1cn[nH]c1", "c1cocn1", "c1cscn1",
    "c1nc[nH]n1", "O=c1cc[nH]c(=O)[nH]1", "Cc1c[nH]c(=O)[nH]c1=O", "Nc1cc[nH]c(=O)n1",
    "Nc1ncnc2[nH]cnc12", "Nc1nc2[nH]cnc2c(=O)[nH]1", "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "O=c1cccc[nH]1", "c1ccc2[nH]ccc2c1", "c1ccc2[nH]cnc2c1", "c1ccc2occc2c1", "c1ccc2sccc2c1",
    "c1ccc2ncccc2c1", "c1ccc2cnccc2c1", "c1ccc2nccnc2c1", "c1ccc2ccccc2c1", "c1ccc2cccc-2cc1",
    "C1=Cc2cccc3cccc1c23", "c1ccc(-c2ccccc2)cc1", "c1ccc2c(c1)Cc1ccccc1-2",
    "c1ccc2c(c1)[nH]c1ccccc12", "c1ccc2c(c1)oc1ccccc12", "c1ccc2c(c1)sc1ccccc12",
    "c1ccc2cc3ccccc3cc2c1", "c1ccc2c(c1)ccc1ccccc12", "O=C1c2ccccc2C(=O)c2ccccc12",
    "O=C1NC(=O)c2ccccc12", "O=c1ccc2ccccc2o1", "O=C1C=CC(=O)C=C1", "O=C1C=CC(=O)c2ccccc12",
    "c1cc2ccc3cccc4ccc(c1)c2c34", "c1ccc2c(c1)-c1cccc3cccc-2c13", "c1ccc2c3ccccc3c3ccccc3c2c1",
    "c1ccc2c(c1)ccc1c3ccccc3ccc21", "c1cc2cccc3c4cccc5cccc(c(c1)c23)c54",
    "c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61", "c1cc2ccc3cccc4c5cccc1c5c2c34",
    "c1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51", "Cc1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51",
    "Fc1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51", "N#Cc1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51",
    "C1c2ccc3c4c2c2c1ccc1c2c2c4c(ccc2C1)C3",
)  # fmt: skip
#: Molecules that form two hydrogen bonds or a strong one: acids, amides, amidines, bases.
HYDROGEN_BONDING = (
    "O", "N", "F", "Cl", "OO", "NO", "CO", "CCO", "OCCO", "CN", "CNC", "NN", "C#N", "C=O", "CC=O",
    "CC(C)=O", "S", "CS",
    "OC=O", "CC(=O)O", "CCC(=O)O", "OC(=O)C(=O)O", "OC(=O)C=CC(=O)O", "OC(=O)c1ccccc1",
    "OC(=O)C(F)(F)F", "NCC(=O)O", "OCC(=O)O", "OC(=O)c1ccccn1", "NC=O", "CC(N)=O", "CNC=O",
    "CNC(C)=O", "NC(N)=O", "NC(=O)C(N)=O", "NC(=O)c1ccccc1", "NC(=O)c1cccnc1", "CNC(N)=O",
    "NC(=S)N", "CC(N)=S", "N=CN", "CC(=N)N", "NC(=N)N", "N=C(N)c1ccccc1", "CC=NO", "CC(C)=NO",
    "NC(=O)CO", "CC(=O)NO", "O=C1CCCN1", "O=C1CCCCN1", "O=C1CCC(=O)N1", "O=C1CNC(=O)CN1",
    "O=C1NCCN1", "O=c1cccc[nH]1", "O=c1cc[nH]cc1", "Nc1ccccn1", "Nc1ncccn1", "Nc1cccnc1",
    "Nc1cc(N)ncn1", "Oc1ccccc1", "Oc1ccccn1", "Nc1ccccc1", "Oc1ccccc1O", "c1cn[nH]c1",
    "c1c[nH]cn1", "c1nc[nH]n1", "c1cc[nH]c1", "c1ccc2[nH]ccc2c1", "c1cnc2[nH]ccc2c1",
    "c1ccc2[nH]cnc2c1", "O=c1cc[nH]c(=O)[nH]1", "Cc1c[nH]c(=O)[nH]c1=O", "Cn1ccc(=O)[nH]c1=O",
    "Nc1cc[nH]c(=O)n1", "Cn1ccc(N)nc1=O", "Nc1ncnc2[nH]cnc12", "Cn1cnc2c(N)ncnc21",
    "Nc1nc2[nH]cnc2c(=O)[nH]1", "O=c1[nH]cnc2[nH]cnc12", "CS(=O)O", "CS(N)(=O)=O",
    "CS(=O)(=O)O", "NS(=O)(=O)c1ccccc1", "COP(=O)(O)OC", "CP(=O)(O)O", "CS(C)=O", "CP(C)(C)=O",
)  # fmt: skip
#: Chains, and bonds whose rotational barriers matter.
FLEXIBLE = (
    "CCCC", "CCCCC", "CCCCCC", "CC(C)CC", "CCO", "CCCO", "OCCO", "COCCOC", "CCOCC", "COCC", "CCN",
    "NCCN", "NCCO", "CCS", "CSSC", "OO", "NN", "NO", "C=CC=C", "C=CCC", "C=CC=O", "CC=CC", "CCC=O",
    "O=CC=O", "CC(=O)C(C)=O", "CCC(=O)O", "COC(C)=O", "CCOC(C)=O", "COC=O", "NCC(=O)O", "CNC(C)=O",
    "CNC=O", "CN(C)C(C)=O", "CC(=O)Nc1ccccc1", "NC(=O)c1ccccc1", "c1ccc(-c2ccccc2)cc1",
    "c1ccc(-c2ccccn2)cc1", "c1ccc(Oc2ccccc2)cc1", "c1ccc(Cc2ccccc2)cc1", "c1ccc(Nc2ccccc2)cc1",
    "COc1ccccc1", "CSc1ccccc1", "CCc1ccccc1", "C=Cc1ccccc1", "Oc1ccccc1", "O=Cc1ccccc1",
    "CC(=O)c1ccccc1", "CS(=O)(=O)c1ccccc1", "CS(=O)(=O)NC", "NS(=O)(=O)c1ccccc1", "ClCCCl", "FCCF",
    "CCCl", "CCF", "NC(=O)NC", "COP(=O)(OC)OC", "CCOP(C)(C)=O", "CC(=O)NC(C)C(=O)NC",
    "CON", "CN(C)N(C)C", "CC(C)=NO", "CNC(=S)C", "COC(=O)N(C)C", "CCC#N", "N#CCCC#N",
)  # fmt: skip
BUILT_IN: dict[str, Callable[[], Iterable[str]]] = {
    **SHORT_LISTS,
    "linear": lambda: LINEAR,
    "aromatic": lambda: AROMATIC,
    "flexible": lambda: FLEXIBLE,
    "hydrogen-bonding": lambda: HYDROGEN_BONDING,
}
SETS: dict[str, Callable[[], Iterable[str]]] = {**LARGE_SETS, **BUILT_IN}
#: Range of the temperatures of geometries, K: from nearly at rest to hot.
TEMPERATURES = (30.0, 600.0)
#: Steps downhill to the driver's geometry, and steps of dynamics of 2 fs from there.
DESCENT_STEPS = 60
DYNAMICS_STEPS = 50
#: Number of conformers that are embedded of a molecule.
CONFORMERS = 3


def read_sets(
    names: Sequence[str],
    files: Sequence[Path],
    max_atoms: int,
    *,
    part: str | None = None,
    split_seed: int = 0,
) -> tuple[list[list[Species]], dict[str, int]]:
    """Return the molecules of each set and file, and counts of those left out.

    Parameters
    ----------
    names : sequence of str
        Keys of `SETS`.
    files : sequence of path
        Text with one SMILES per line; each file is a set.
    max_atoms : int
        Largest molecule.
    part : str or None
        Only molecules of this part of the split; None for all.
    split_seed : int

    Raises
    ------
    ValueError
        If no molecule of a set may be used.
    """
    if max_atoms < 2:
        raise ValueError(f"--max-atoms is {max_atoms}; it must be at least 2.")
    sources = {name: SETS[name]() for name in names}
    sources |= {str(path): read_smiles(path) for path in files}
    sets: list[list[Species]] = []
    skipped: Counter[str] = Counter()
    for name, smiles in sources.items():
        selected, left_out = select_species(smiles, max_atoms, None, seed=0)
        skipped.update(left_out)
        in_part = [molecule for molecule in selected if is_in_part(molecule.key, part, split_seed)]
        if not in_part:
            of_part = "" if part is None else f" of the {part} part"
            raise ValueError(
                f"the set '{name}' has no suitable molecule{of_part} of at most "
                f"{max_atoms} atoms; leave it out, or raise --max-atoms."
            )
        skipped[f"not in the {part} part"] += len(selected) - len(in_part)
        sets.append(in_part)
    return sets, dict(+skipped)


def is_in_part(key: str, part: str | None, split_seed: int) -> bool:
    """Return whether a molecule belongs to a part of the split; water belongs to all parts."""
    return part is None or key == WATER or split_of(key, split_seed) == part


class Embedder:
    """Conformers of molecules, each embedded once.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._results: dict[str, Molecule | UnsuitableError] = {}

    def __call__(self, species: Species) -> Molecule:
        """Return a molecule with a few conformers.

        Raises
        ------
        UnsuitableError
            If RDKit cannot embed it.
        """
        if species.key not in self._results:
            rng = generator(self.seed, species.key)
            try:
                # Wrong geometries of MMFF94 are corrected later, when the driver relaxes them.
                molecule = embed(species, CONFORMERS, int(rng.integers(2**31 - 1)), mmff=False)
            except (UnsuitableError, RuntimeError) as error:
                self._results[species.key] = UnsuitableError(str(error).splitlines()[0])
            else:
                self._results[species.key] = molecule
        result = self._results[species.key]
        if isinstance(result, UnsuitableError):
            raise result
        return result


def thermal_geometries(
    drawn: Sequence[Molecule],
    driver: Potential,
    rng: np.random.Generator,
    *,
    between: tuple[float, float] = TEMPERATURES,
) -> list[Positions | None]:
    """Return a geometry of each molecule from short dynamics about a minimum of the driver.

    Parameters
    ----------
    drawn : sequence of Molecule
        One conformer of each is taken at random.
    driver : Potential
        The driver, see :func:`ase_student.potentials.registry.load_potential`.
    rng : numpy.random.Generator
    between : (float, float), K
        Range from which each temperature is drawn.

    Returns
    -------
    list of (n_atoms, 3) float64, Å, or None
        None if a molecule came apart, or if its forces are not known.
    """
    starts = [
        molecule.atoms(molecule.conformers[int(rng.integers(len(molecule.conformers)))])
        for molecule in drawn
    ]
    minima = relaxed(starts, driver, DESCENT_STEPS)
    temperatures = rng.uniform(*between, size=len(drawn)).tolist()
    if not minima:
        return []
    moved = next(trajectories(minima, driver, temperatures, n_steps=DYNAMICS_STEPS, rng=rng))
    return [
        atoms.positions
        if np.isfinite(atoms.positions).all()
        and not came_apart(atoms.numbers, start.positions, atoms.positions)
        else None
        for start, atoms in zip(starts, moved, strict=True)
    ]
