"""Teachers: whatever can label structures with energies and forces."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray


@dataclass(frozen=True)
class Label:
    """What a teacher says about one structure.

    Attributes
    ----------
    energy : float, eV
    forces : (n_atoms, 3) float, eV/Å
    stress : (6,) float, eV/Å³, or None
        Voigt order, positive in tension; None unless the structure is periodic along three axes.
    """

    energy: float
    forces: NDArray[np.floating]
    stress: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Failure:
    """Why a teacher has no label for a structure."""

    reason: str


class Teacher(Protocol):
    """Anything that labels structures.

    Attributes
    ----------
    name : str
        What it was asked for by.
    settings : dict
        Version and settings that decide its labels; two teachers with equal settings agree.
    """

    name: str
    settings: dict[str, Any]

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        ...


class CalculatorTeacher:
    """Any ASE calculator, one structure at a time.

    Parameters
    ----------
    name : str
    make : callable
        Returns the calculator. It is called again after a failure, which may have left the old
        calculator in a bad state.
    settings : dict
    """

    def __init__(self, name: str, make: Callable[[], Any], settings: dict[str, Any]) -> None:
        self.name = name
        self.settings = settings
        self._make = make
        self._calculator = make()

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        return [self._label_one(atoms) for atoms in structures]

    def _label_one(self, atoms: Atoms) -> Label | Failure:
        # A calculator is third-party code: whatever it raises must not stop a long job.
        try:
            return self._evaluate(atoms)
        except Exception as error:
            self._calculator = self._make()
            return Failure(one_line(error))

    def _evaluate(self, atoms: Atoms) -> Label:
        atoms = atoms.copy()
        atoms.calc = self._calculator
        energy = float(atoms.get_potential_energy())
        forces = np.array(atoms.get_forces())
        stress = None
        if is_crystal(atoms):
            with suppress(NotImplementedError):
                stress = np.array(atoms.get_stress())
        return Label(energy, forces, stress)


class So3lrTeacher:
    """SO3LR (Kabylda et al., JACS 2025, doi 10.1021/jacs.5c09558), many structures per call.

    The network runs in float32, but the energy it adds to every atom by construction, -163.6 eV,
    is taken out of it and added in float64 afterwards. With it inside, float32 energies are wrong
    by 1e-3 eV; without, by 1e-5 eV, and they come about twice as fast as in float64.

    Parameters
    ----------
    dtype : 'float32' or 'float64'
    """

    #: Larger batches spill the caches and get slower again.
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
        # Structures of equal size share a batch; the order of the answers is that of the questions.
        order = np.argsort([len(atoms) for atoms in structures], kind="stable").tolist()
        results: dict[int, Label | Failure] = {}
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
            yield Label(float(energies[rows].sum()), forces[rows], stress)


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


def is_crystal(atoms: Atoms) -> bool:
    """Say whether a structure is periodic along three axes, so that it has a stress."""
    return bool(atoms.pbc.all()) and atoms.cell.rank == 3


def one_line(error: Exception) -> str:
    """Return what an exception says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def load_teacher(name: str) -> Teacher:
    """Return a teacher by name, or any ASE calculator by its import path.

    Parameters
    ----------
    name : str
        ``'so3lr'``, ``'gfn2-xtb'``, or ``'package.module:Class'``; the class, or any other callable
        that returns an ASE calculator, is called without arguments.

    Raises
    ------
    ValueError
        If there is no such teacher.
    ImportError
        If what it needs is not installed.
    """
    if name == "so3lr":
        return So3lrTeacher()
    if name == "gfn2-xtb":
        return _gfn2_xtb()
    if ":" in name:
        return _imported(name)
    raise ValueError(
        f"no teacher named '{name}'; available: 'so3lr', 'gfn2-xtb'. "
        "To take any ASE calculator, give its path as 'package.module:Class'."
    )


def _gfn2_xtb() -> CalculatorTeacher:
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError(
            'the teacher gfn2-xtb needs tblite: pip install "ase-student[xtb]"'
        ) from error
    return CalculatorTeacher(
        "gfn2-xtb",
        lambda: TBLite(method="GFN2-xTB", verbosity=0),
        {"package": f"tblite {version('tblite')}", "method": "GFN2-xTB", "total_charge": 0.0},
    )


def _imported(path: str) -> CalculatorTeacher:
    module_name, _, attribute = path.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise ImportError(f"teacher '{path}': {error}.") from error
    except AttributeError:
        raise ValueError(
            f"teacher '{path}': module '{module_name}' has no '{attribute}'."
        ) from None
    if not callable(make) or not hasattr(calculator := make(), "get_potential_energy"):
        raise ValueError(f"teacher '{path}' is not a class of ASE calculators.")
    root = type(calculator).__module__.split(".")[0]
    distributions = packages_distributions().get(root, [])
    try:
        package = f"{distributions[0]} {version(distributions[0])}"
    except (IndexError, PackageNotFoundError):
        package = root
    return CalculatorTeacher(path, make, {"package": package, "calculator": path})
