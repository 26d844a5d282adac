"""The teacher SO3LR, a general force field of organic and biological molecules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from ase_student.potentials.base import Answer, Evaluation, Refusal, is_crystal, one_line
from ase_student.potentials.calculator import refusal_of_elements

if TYPE_CHECKING:
    import torch

#: eV Å: energy of two elementary charges at 1 Å, with SO3LR's value.
COULOMB_CONSTANT = 14.399645351950548
#: Å. Cutoff of dispersion in periodic structures, as in SO3LR's own calculator.
PERIODIC_DISPERSION_CUTOFF = 12.0
#: Å. Larger than any structure: the neighbor list of SO3LR then contains all pairs.
ALL_PAIRS = 1000.0
#: Ewald sums leave out wave vectors whose factor exp(-k² σ² / 4) is smaller than this.
EWALD_ACCURACY = 1e-9


class So3lrTeacher:
    """SO3LR (Kabylda et al., JACS 2025, doi 10.1021/jacs.5c09558), many structures per call.

    SO3LR was trained without a cutoff of its long-range terms (``cutoff_lr: null`` in its
    settings), and its authors recommend a cutoff of 1000 Å outside of periodic boxes. The default
    of its calculator, 12 Å, shifts the Coulomb energy of every pair and changes its form from 5.4 Å
    on: the binding energy of S22's water dimer is then 7.2 instead of 5.6 kcal/mol. Here molecules
    and clusters have no long-range cutoff. For structures that are periodic along three axes, the
    Coulomb energy is an Ewald sum, the limit of the same energy for large clusters, and dispersion
    ends at 12 Å.

    The network runs in float32, but the constant energy that it adds to every atom, -163.6 eV, is
    removed from it and added in float64 afterwards. With this constant inside, errors of float32
    energies are 1e-3 eV; without it 1e-5 eV, and about twice as fast as in float64.

    Parameters
    ----------
    long_range : float, Å, optional
        Cutoff of Coulomb and dispersion energies of all structures, in the form of SO3LR's own
        calculator, which then needs no Ewald sum. Required for structures that are periodic along
        one or two axes, which are otherwise refused.
    dtype : 'float32' or 'float64'

    Raises
    ------
    ImportError
        If So3krates-torch is not installed.
    ValueError
        If `long_range` is not above the cutoff of the network, or `dtype` is not allowed.
    """

    #: Elements of its training data. Its tables also have rows for other elements, without meaning.
    elements: frozenset[int] | None = frozenset((1, 6, 7, 8, 9, 15, 16, 17))

    #: Larger batches are no faster.
    BATCH_ATOMS = 800

    def __init__(self, long_range: float | None = None, dtype: str = "float32") -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64'; given {dtype!r}.")
        try:
            import torch
            from so3krates_torch.calculator.so3 import SO3LRCalculator
        except ImportError as error:
            raise ImportError(
                'the teacher so3lr needs So3krates-torch: pip install "ase-student[distill]"'
            ) from error
        self.name = "so3lr"
        self._dtype: torch.dtype = getattr(torch, dtype)
        with default_dtype(self._dtype):
            self._calculator = SO3LRCalculator(
                device="cpu", default_dtype=dtype, compute_stress=False
            )
        self._model = self._calculator.models[0]
        self._cutoff = float(self._model.r_max)
        self._long_range = _checked_long_range(long_range, self._cutoff)
        self._damping_length = float(self._model.electrostatic_energy_scale)
        # With `use_pme` the model calls the attribute of this name with positions and cells.
        self._model.pme_electrostatic_potential = self._ewald
        head = self._model.atomic_energy_output_block
        shifts = head.energy_shifts.detach().double().numpy()
        # Entry k of the table belongs to atomic number k + 1.
        self._shift_of = np.concatenate([[0.0], shifts])
        with torch.no_grad():
            head.energy_shifts.zero_()
        self.settings = {
            "package": f"So3krates-torch {version('So3krates-torch')}",
            "torch": version("torch"),
            "dtype": dtype,
            "cutoff": self._cutoff,
            "cutoff_long_range": "none" if long_range is None else self._long_range,
            "periodic_coulomb": "Ewald" if long_range is None else "cutoff",
            "periodic_dispersion_cutoff": self._long_range or PERIODIC_DISPERSION_CUTOFF,
            "dispersion_damping": float(self._model.dispersion_energy_cutoff_lr_damping),
            "electrostatics": bool(self._model.electrostatic_energy_bool),
            "dispersion": bool(self._model.dispersion_energy_bool),
            "total_charge": 0.0,
        }

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        results: dict[int, Answer] = {
            i: refusal
            for i, atoms in enumerate(structures)
            if (refusal := self._refused(atoms)) is not None
        }
        # Structures of similar size share a batch, and crystals are in batches of their own. The
        # answers are in the order of the structures.
        keys = [(is_crystal(atoms), len(atoms)) for atoms in structures]
        order = sorted(
            (i for i in range(len(structures)) if i not in results), key=keys.__getitem__
        )
        for batch in _batches(order, structures, self.BATCH_ATOMS):
            answers = self._evaluate_batch([structures[i] for i in batch])
            results.update(zip(batch, answers, strict=True))
        return [results[i] for i in range(len(structures))]

    def _refused(self, atoms: Atoms) -> Refusal | None:
        if (refusal := refusal_of_elements(atoms, self.elements)) is not None:
            return refusal
        if self._long_range is None and atoms.pbc.any() and not is_crystal(atoms):
            return Refusal(
                "is periodic along one or two axes, for which so3lr has no Ewald sum; "
                "give the teacher a long-range cutoff: so3lr:long_range=12"
            )
        return None

    def _evaluate_batch(self, structures: list[Atoms]) -> list[Answer]:
        # If one structure fails, the others of its batch still get their answers.
        try:
            return list(self._evaluate(structures))
        except Exception as error:
            if len(structures) == 1:
                return [Refusal(one_line(error))]
            return [self._evaluate_batch([atoms])[0] for atoms in structures]

    def _evaluate(self, structures: list[Atoms]) -> Iterator[Evaluation]:
        from so3krates_torch.data.atomic_data import AtomicData
        from so3krates_torch.data.utils import config_from_atoms
        from so3krates_torch.tools.torch_geometric.batch import Batch

        calculator = self._calculator
        are_crystals = is_crystal(structures[0])
        cutoff = self._set_long_range(are_crystals)
        with default_dtype(self._dtype):
            data = [
                AtomicData.from_config(
                    config_from_atoms(atoms, key_specification=calculator.key_specification),
                    z_table=calculator.z_table,
                    cutoff=calculator.r_max,
                    cutoff_lr=cutoff,
                )
                for atoms in structures
            ]
            batch = Batch.from_data_list(data).to_dict()
            # Stress takes time, and only crystals have one.
            out = self._model(batch, compute_stress=are_crystals)
        energies = out["node_energy"].detach().double().numpy().ravel()
        energies += self._shift_of[np.concatenate([atoms.numbers for atoms in structures])]
        forces, charges, ratios = (
            out[name].detach().numpy() for name in ("forces", "partial_charges", "hirshfeld_ratios")
        )
        atom_ends = np.cumsum([len(atoms) for atoms in structures])
        for i, (atoms, end) in enumerate(zip(structures, atom_ends, strict=True)):
            rows = slice(end - len(atoms), end)
            stress = None
            if are_crystals:
                stress = full_3x3_to_voigt_6_stress(out["stress"][i].detach().double().numpy())
            yield Evaluation(
                energy=float(energies[rows].sum()),
                forces=forces[rows].astype(np.float64),
                stress=stress,
                energies=energies[rows],
                charges=charges[rows].ravel(),
                hirshfeld_ratios=ratios[rows].ravel(),
            )

    def _set_long_range(self, are_crystals: bool) -> float:
        """Set the model up for a batch, and return the cutoff of its long-range pairs, Å."""
        model = self._model
        model.use_pme = are_crystals and self._long_range is None
        if self._long_range is not None:
            model.r_max_lr = self._long_range
            return self._long_range
        if not are_crystals:
            model.r_max_lr = None
            return ALL_PAIRS
        model.r_max_lr = PERIODIC_DISPERSION_CUTOFF
        return PERIODIC_DISPERSION_CUTOFF

    def _ewald(
        self,
        *,
        partial_charges: torch.Tensor,
        positions: torch.Tensor,
        cell: torch.Tensor,
        batch_segments: torch.Tensor,
        num_graphs: int,
        **_: Any,
    ) -> torch.Tensor:
        """Return the Coulomb energy of every atom, (n_atoms, 1) eV, for a batch of crystals."""
        import torch

        # For the stress, the model passes a strained cell, but unstrained positions.
        strain = self._model.displacement
        strain = (0.5 * (strain + strain.transpose(1, 2)))[batch_segments]
        positions = positions + torch.einsum("ia,iab->ib", positions, strain)
        cells = cell.view(-1, 3, 3)
        energies = torch.zeros_like(partial_charges)
        for i in range(num_graphs):
            rows = torch.nonzero(batch_segments == i).flatten()
            parts = damped_ewald_energies(
                partial_charges[rows].flatten(), positions[rows], cells[i], self._damping_length
            )
            energies = energies.index_copy(0, rows, parts.view(-1, *energies.shape[1:]))
        return energies.view(-1, 1)


def damped_ewald_energies(
    charges: torch.Tensor, positions: torch.Tensor, cell: torch.Tensor, sigma: float
) -> torch.Tensor:
    """Return every atom's part of the damped Coulomb energy of a crystal.

    The energy of a pair is k q q' erf(r / σ) / r, that of Gaussian charge densities of
    width σ. Its sum over all images has no part in real space
    (Ewald, Ann. Phys. 369, 253, 1921; conducting boundary, background neutralized):
    E = 2π k / V Σ_{k≠0} exp(-k² σ² / 4) / k² |Σ_j q_j exp(i k r_j)|² - k Σ_j q_j² / (σ √π).

    Parameters
    ----------
    charges : (n_atoms,) float, e
    positions : (n_atoms, 3) float, Å
    cell : (3, 3) float, Å
        Rows are lattice vectors.
    sigma : float, Å

    Returns
    -------
    (n_atoms,) float, eV
    """
    import torch

    reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).T
    longest = 2.0 / sigma * math.sqrt(-math.log(EWALD_ACCURACY))
    # |n_i| = |k · a_i| / 2π: these limits include all wave vectors within the sphere.
    limits = torch.linalg.vector_norm(cell.detach(), dim=1) * longest / (2.0 * math.pi)
    axes = [torch.arange(-int(n), int(n) + 1) for n in limits]
    multiples = torch.cartesian_prod(*axes).to(cell.dtype)
    vectors = multiples @ reciprocal
    squares = (vectors**2).sum(1)
    is_included = (squares.detach() <= longest**2) & multiples.any(1)
    vectors, squares = vectors[is_included], squares[is_included]
    volume = torch.linalg.det(cell).abs()
    weights = 4.0 * math.pi / volume * torch.exp(-0.25 * sigma**2 * squares) / squares
    phases = positions @ vectors.T
    cosines, sines = torch.cos(phases), torch.sin(phases)
    potentials = cosines @ (weights * (charges @ cosines))
    potentials = potentials + sines @ (weights * (charges @ sines))
    self_interaction = 2.0 / (sigma * math.sqrt(math.pi))
    return 0.5 * COULOMB_CONSTANT * charges * (potentials - self_interaction * charges)


def _checked_long_range(long_range: float | None, cutoff: float) -> float | None:
    if long_range is None:
        return None
    if isinstance(long_range, bool) or not isinstance(long_range, (int, float)):
        raise ValueError(f"long_range must be a length in Å; given {long_range!r}.")
    if not cutoff < long_range < math.inf:
        raise ValueError(
            f"long_range must be above the network's cutoff of {cutoff:g} Å; "
            f"given {long_range:g}. Leave it out for no long-range cutoff."
        )
    return float(long_range)


def _batches(
    order: Sequence[int], structures: Sequence[Atoms], max_atoms: int
) -> Iterator[list[int]]:
    """Yield indices in batches of at most `max_atoms` atoms, with crystals in separate batches."""
    batch: list[int] = []
    n_atoms = 0
    for i in order:
        is_full = n_atoms + len(structures[i]) > max_atoms
        if batch and (is_full or is_crystal(structures[i]) != is_crystal(structures[batch[0]])):
            yield batch
            batch, n_atoms = [], 0
        batch.append(i)
        n_atoms += len(structures[i])
    if batch:
        yield batch


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Set torch's default dtype in the block; SO3LR creates its tensors with it."""
    import torch

    previous_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous_dtype)
