"""Selection of the molecules to sample: from lists, files and large sets, or their variants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from ase_student.data.splits import WATER, split_of
from ase_student.distill.molecules import species
from ase_student.distill.molecules.coverage import Coverage
from ase_student.distill.molecules.species import Species
from ase_student.distill.molecules.variants import variants
from ase_student.distill.sampling.settings import MoleculeTask, SamplingSettings

#: Largest number of draws of variants; each draw is of as many variants as are wanted.
MAX_VARIANT_DRAWS = 20


def choose_jobs(
    large: Iterable[str],
    settings: SamplingSettings,
    n_molecules: int | None = None,
    *,
    lists: Mapping[str, Sequence[str]] | None = None,
    cover: Coverage | None = None,
    n_variants: int | None = None,
) -> tuple[list[MoleculeTask], tuple[Species, ...], dict[str, int]]:
    """Return the molecules to sample, the partners for clusters, and counts of skipped molecules.

    Parameters
    ----------
    large : iterable of str
        SMILES of large sets, of which a part may be taken.
    settings : SamplingSettings
    n_molecules : int, optional
        Number of molecules to take from `large`, chosen by the seed; all by default.
    lists : mapping of str to sequence of str, optional
        Lists of SMILES that are taken completely: 'small', 'biomolecules', or any other name.
    cover : Coverage, optional
        Takes from `large` only molecules that are needed for its number of examples of each kind of
        atom.
    n_variants : int, optional
        Take this number of variants of the molecules in `large` instead of these molecules; no
        variant is a molecule of `large` or of the lists
        (:func:`ase_student.distill.molecules.variants.variants`).

    Raises
    ------
    ValueError
        If there are no molecules to make variants of, or not enough variants are found.
    """
    factors = {"small": settings.small_factor, "biomolecules": settings.biomolecule_factor}
    skipped: Counter[str] = Counter()
    jobs: dict[str, MoleculeTask] = {}
    small: list[Species] = []
    for name, listed in (lists or {}).items():
        selected, left_out = _selected(listed, settings.max_cluster_atoms, settings)
        skipped.update(left_out)
        if name == "small":
            small = selected
        for molecule in selected:
            if factors.get(name, 1) > 0:
                jobs.setdefault(molecule.key, MoleculeTask(molecule, factors.get(name, 1)))
    selected, left_out = _selected(large, settings.max_atoms, settings)
    skipped.update(left_out)
    if n_variants is not None:
        selected, left_out = _variants(selected, set(jobs), n_variants, settings)
        skipped.update(left_out)
    candidates = [molecule for molecule in selected if molecule.key not in jobs]
    chosen = (
        [(molecule, 1) for molecule in candidates] if cover is None else cover.choose(candidates)
    )
    jobs |= {
        molecule.key: MoleculeTask(molecule, n_times) for molecule, n_times in chosen[:n_molecules]
    }
    # A third of the partners are small molecules, which fit beside any molecule.
    larger = [job.species for job in jobs.values() if job.species not in small]
    partners = larger + small * max(1, len(larger) // max(1, 2 * len(small)))
    return list(jobs.values()), tuple(partners), dict(skipped)


def _variants(
    parents: Sequence[Species], known: Collection[str], count: int, settings: SamplingSettings
) -> tuple[list[Species], dict[str, int]]:
    """Return `count` variants of the parents that are not known, and counts of skipped ones."""
    if not parents:
        raise ValueError("there are no molecules of a large set or a file to make variants of.")
    rng = species.generator(settings.seed, "variants")
    drawn = variants([molecule.smiles for molecule in parents], rng)
    known_keys = {*known, *(molecule.key for molecule in parents)}
    chosen: list[Species] = []
    skipped: Counter[str] = Counter()
    for _ in range(MAX_VARIANT_DRAWS):
        selected, left_out = _selected(islice(drawn, count), settings.max_atoms, settings)
        skipped.update(left_out)
        for molecule in selected:
            if molecule.key in known_keys:
                skipped["variant that is known"] += 1
            elif len(chosen) < count:
                known_keys.add(molecule.key)
                chosen.append(molecule)
        if len(chosen) == count:
            return chosen, dict(skipped)
    raise ValueError(f"only {len(chosen)} variants of {len(parents)} molecules were found.")


def _selected(
    smiles: Iterable[str], max_atoms: int, settings: SamplingSettings
) -> tuple[list[Species], dict[str, int]]:
    selected, skipped = species.select_species(smiles, max_atoms, None, seed=settings.seed)
    if settings.part is None:
        return selected, skipped
    # Water belongs to every part.
    in_part = [
        molecule
        for molecule in selected
        if molecule.key == WATER or split_of(molecule.key, settings.split_seed) == settings.part
    ]
    if len(in_part) < len(selected):
        skipped[f"not in the {settings.part} part"] = len(selected) - len(in_part)
    return in_part, skipped
