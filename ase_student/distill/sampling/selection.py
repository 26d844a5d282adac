"""Choose what to sample: molecules of lists, files and large sets, or variants of them."""

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

#: Variants are drawn at most so many times as there are to be.
VARIANTS_DRAWN = 20


def choose_jobs(
    large: Iterable[str],
    settings: SamplingSettings,
    n_molecules: int | None = None,
    *,
    lists: Mapping[str, Sequence[str]] | None = None,
    cover: Coverage | None = None,
    n_variants: int | None = None,
) -> tuple[list[MoleculeTask], tuple[Species, ...], dict[str, int]]:
    """Return what to sample, what may meet in clusters, and counts of what was skipped.

    Parameters
    ----------
    large : iterable of str
        SMILES of which any number may be taken.
    settings : Settings
    n_molecules : int, optional
        How many of them to take, chosen by the seed; all by default.
    lists : mapping of str to sequence of str, optional
        SMILES that are taken whole: 'small', 'biomolecules', or any other name.
    cover : Cover, optional
        Of the large sets only those molecules that are needed to have each kind of atom so often.
    n_variants : int, optional
        In place of the large sets, so many variants of their molecules, of which none is one of
        these (:func:`ase_student.distill.molecules.variants.variants`).

    Raises
    ------
    ValueError
        If there are no molecules to make variants of, or there are not as many.
    """
    factors = {"small": settings.small_factor, "biomolecules": settings.biomolecule_factor}
    skipped: Counter[str] = Counter()
    jobs: dict[str, MoleculeTask] = {}
    small: list[Species] = []
    for name, listed in (lists or {}).items():
        found, left_out = _selected(listed, settings.max_cluster_atoms, settings)
        skipped.update(left_out)
        if name == "small":
            small = found
        for one in found:
            if factors.get(name, 1) > 0:
                jobs.setdefault(one.key, MoleculeTask(one, factors.get(name, 1)))
    found, left_out = _selected(large, settings.max_atoms, settings)
    skipped.update(left_out)
    if n_variants is not None:
        found, left_out = _variants(found, set(jobs), n_variants, settings)
        skipped.update(left_out)
    rest = [one for one in found if one.key not in jobs]
    chosen = [(one, 1) for one in rest] if cover is None else cover.choose(rest)
    jobs |= {one.key: MoleculeTask(one, n_times) for one, n_times in chosen[:n_molecules]}
    # A third of the partners are small molecules, which fit and pair with anything.
    others = [job.species for job in jobs.values() if job.species not in small]
    partners = others + small * max(1, len(others) // max(1, 2 * len(small)))
    return list(jobs.values()), tuple(partners), dict(skipped)


def _variants(
    parents: Sequence[Species], known: Collection[str], count: int, settings: SamplingSettings
) -> tuple[list[Species], dict[str, int]]:
    """Return so many variants of the parents, none of which is known, and counts of the others."""
    if not parents:
        raise ValueError("there are no molecules of a large set or a file to make variants of.")
    rng = species.generator(settings.seed, "variants")
    drawn = variants([one.smiles for one in parents], rng)
    names = {*known, *(one.key for one in parents)}
    chosen: list[Species] = []
    skipped: Counter[str] = Counter()
    for _ in range(VARIANTS_DRAWN):
        found, left_out = _selected(islice(drawn, count), settings.max_atoms, settings)
        skipped.update(left_out)
        for one in found:
            if one.key in names:
                skipped["variant that is known"] += 1
            elif len(chosen) < count:
                names.add(one.key)
                chosen.append(one)
        if len(chosen) == count:
            return chosen, dict(skipped)
    raise ValueError(f"only {len(chosen)} variants of {len(parents)} molecules were found.")


def _selected(
    smiles: Iterable[str], max_atoms: int, settings: SamplingSettings
) -> tuple[list[Species], dict[str, int]]:
    found, skipped = species.select_species(smiles, max_atoms, None, seed=settings.seed)
    if settings.part is None:
        return found, skipped
    # Water belongs to every part.
    kept = [
        one
        for one in found
        if one.key == WATER or split_of(one.key, settings.split_seed) == settings.part
    ]
    if len(kept) < len(found):
        skipped[f"not in the {settings.part} part"] = len(found) - len(kept)
    return kept, skipped
