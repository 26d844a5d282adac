"""The teacher SO3LR, a general force field of organic and biological molecules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from ase_student.potentials.base import Failure, Label, is_crystal, one_line
from ase_student.potentials.calculator import foreign

if TYPE_CHECKING:
    import torch


class So3lrTeacher:
    """SO3LR (Kabylda et al., JACS 2025, doi 10.1021/jacs.5c09558), many structures per call.

    The network runs in float32, but the energy it adds to every atom by construction, -163.6 eV,
    is taken out of it and added in float64 afterwards. With it inside, float32 energies are wrong
    by 1e-3 eV; without, by 1e-5 eV, and they come about twice as fast as in float64.

    Parameters
    ----------
    dtype : 'float32' or 'float64'

    Raises
    ------
    ImportError
        If So3krates-torch is not installed.
    """

    #: What its training data hold; its tables have rows for all others too, but no meaning.
    elements: frozenset[int] | None = frozenset((1, 6, 7, 8, 9, 15, 16, 17))

    #: Larger batches are no faster.
    BATCH_ATOMS = 400

    def __init__(self, dtype: str = "float32") -> None:
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
            "cutoff": float(self._model.r_max),
            "cutoff_long_range": float(self._model.r_max_lr),
            "dispersion_damping": float(self._model.dispersion_energy_cutoff_lr_damping),
            "electrostatics": bool(self._model.electrostatic_energy_bool),
            "dispersion": bool(self._model.dispersion_energy_bool),
            "total_charge": 0.0,
        }

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        results: dict[int, Label | Failure] = {
            i: failure
            for i, atoms in enumerate(structures)
            if (failure := foreign(atoms, self.elements)) is not None
        }
        # Structures of equal size share a batch; the order of the answers is that of the questions.
        by_size = np.argsort([len(atoms) for atoms in structures], kind="stable").tolist()
        order = [i for i in by_size if i not in results]
        for batch in _batches(order, structures, self.BATCH_ATOMS):
            answers = self._label_batch([structures[i] for i in batch])
            results.update(zip(batch, answers, strict=True))
        return [results[i] for i in range(len(structures))]

    def _label_batch(self, structures: list[Atoms]) -> list[Label | Failure]:
        # One bad structure must not cost its batch-mates their labels.
        try:
            return list(self._evaluate(structures))
        except Exception as error:
            if len(structures) == 1:
                return [Failure(one_line(error))]
            return [self._label_batch([atoms])[0] for atoms in structures]

    def _evaluate(self, structures: list[Atoms]) -> Iterator[Label]:
        from so3krates_torch.data.atomic_data import AtomicData
        from so3krates_torch.data.utils import config_from_atoms
        from so3krates_torch.tools.torch_geometric.batch import Batch

        known = self._calculator
        with default_dtype(self._dtype):
            data = [
                AtomicData.from_config(
                    config_from_atoms(atoms, key_specification=known.key_specification),
                    z_table=known.z_table,
                    cutoff=known.r_max,
                    cutoff_lr=known.r_max_lr,
                )
                for atoms in structures
            ]
            # Stress costs time, and only crystals have one.
            crystals = [is_crystal(atoms) for atoms in structures]
            batch = Batch.from_data_list(data).to_dict()
            out = self._model(batch, compute_stress=any(crystals))
        energies = out["node_energy"].detach().double().numpy().ravel()
        energies += self._shift_of[np.concatenate([atoms.numbers for atoms in structures])]
        forces = out["forces"].detach().numpy()
        ends = np.cumsum([len(atoms) for atoms in structures])
        for i, (atoms, end) in enumerate(zip(structures, ends, strict=True)):
            rows = slice(end - len(atoms), end)
            stress = None
            if crystals[i]:
                stress = full_3x3_to_voigt_6_stress(out["stress"][i].detach().double().numpy())
            yield Label(float(energies[rows].sum()), forces[rows], stress, energies[rows])


def _batches(
    order: Sequence[int], structures: Sequence[Atoms], max_atoms: int
) -> Iterator[list[int]]:
    batch: list[int] = []
    n_atoms = 0
    for i in order:
        if batch and n_atoms + len(structures[i]) > max_atoms:
            yield batch
            batch, n_atoms = [], 0
        batch.append(i)
        n_atoms += len(structures[i])
    if batch:
        yield batch


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Set torch's default dtype for a while: SO3LR builds its tensors by it."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
