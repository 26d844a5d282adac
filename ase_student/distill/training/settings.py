"""Settings of a training, which a TOML file can give, and shapes of the students by name."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_student.cli import suggestion
from ase_student.data.splits import SPLITS
from ase_student.student import Architecture

# The parameter counts stay below those that the names stand for: 427,292, 77,203 and 21,459.
SHAPES: dict[str, dict[str, int]] = {
    "original": {
        "features": 128,
        "blocks": 3,
        "hidden": 80,
        "n_rbf": 16,
        "message_channels": 64,
        "tensor_channels": 64,
    },
    "tiny": {
        "features": 64,
        "blocks": 2,
        "hidden": 42,
        "n_rbf": 12,
        "message_channels": 32,
        "tensor_channels": 24,
    },
    "ultra-tiny": {
        "features": 32,
        "blocks": 2,
        "hidden": 17,
        "n_rbf": 10,
        "message_channels": 16,
        "tensor_channels": 16,
    },
}
#: The network's radial functions vanish up to this fraction of the sum of covalent radii, and are
#: complete from 1.2 times that on: 0.6, where training data begin.
INNER_CUTOFF = 0.5
OPTIMIZERS = ("soap", "adam")
GRADIENTS = ("autograd", "compiled")

_POSITIVE = (
    "learning_rate", "final_learning_rate", "max_gradient_norm", "force_scale", "energy_scale",
    "stress_scale", "atomic_energy_scale", "energy_weight", "final_energy_weight",
    "interaction_scale", "conformer_scale",
)  # fmt: skip
_COUNTS = ("epochs", "batch_size", "validate_every", "validation_structures")
_NOT_NEGATIVE = (
    "warmup", "weight_decay", "stress_weight", "atomic_energy_weight", "interaction_weight",
    "conformer_weight", "split_seed", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training.

    Attributes
    ----------
    epochs : int
        Passes over the training set.
    batch_size : int
        Structures in a batch, on every device.
    optimizer : 'soap' or 'adam'
        SOAP (Vyas et al., ICLR 2025, arXiv:2409.11321) is Adam in the eigenbasis of Shampoo's
        preconditioner; it needs a third of Adam's steps here, and 5 to 10 % more time per step.
    learning_rate : float
        Highest rate, reached after `warmup` steps, then lowered along half a cosine.
    final_learning_rate : float
    warmup : int
        Steps.
    weight_decay : float
        In every step weights shrink by the fraction `weight_decay` times the rate (SOAP only).
    max_gradient_norm : float
        Gradients with a larger norm are scaled down to this norm.
    ema_decay : float
        Weights of the result are an exponential moving average over about 1 / (1 - decay) steps.
    force_scale : float
        eV/Å. Force errors count quadratically below and linearly above.
    energy_scale : float
        eV per √atom. The same limit for errors of the total energy.
    energy_weight : float
        Weight of the energy term relative to the force term at the beginning.
    final_energy_weight : float
        Weight of the energy term at the end. Forces are learned faster while the energy counts
        little.
    stress_scale : float
        eV/Å³. The same limit for errors of the stress, of periodic structures whose labels hold it.
    stress_weight : float
        Weight of the stress term; 0 leaves it out.
    atomic_energy_scale : float
        eV. The same limit for errors of the energies of single atoms, if the teacher gives them.
        The mean error of each structure is subtracted: the energy term contains it.
    atomic_energy_weight : float
        Weight of the term of atomic energies; 0 leaves it out.
    interaction_scale : float
        eV. The same limit for errors of the interaction energy of a complex: its energy minus those
        of its fragments in the same geometries, where the data hold both.
    interaction_weight : float
        Weight of each such complex relative to the other terms of a structure; 0 leaves the term
        out.
    conformer_scale : float
        eV. The same limit for errors of the relative energy of a frame of a torsion scan: its
        energy minus the mean energy of its group of frames of the scan.
    conformer_weight : float
        Weight of each such frame; 0 leaves the term out.
    validate_every : int
        Steps between evaluations on the validation part, each of which writes a checkpoint.
    validation_structures : int
        Largest number of structures of the validation part to evaluate, chosen by the seed.
    split : 'molecule' or 'structure'
        What is never in two parts of the split. Splitting by structure is for students of a single
        molecule or crystal: the test then gives no information about other molecules.
    split_seed : int
        Seed of the split; two students can only be compared if theirs is the same.
    seed : int
        Seed of the weights and of the order of the data.
    gradient : 'autograd' or 'compiled'
        How the loss is differentiated. 'compiled' compiles the network and the optimizer with a C++
        compiler for this processor, and takes derivatives of forces from a displaced structure
        (:mod:`ase_student.distill.training.finite_difference`): several times faster, on CPUs
        only.

    Raises
    ------
    ValueError
        If a value is invalid.
    TypeError
        If a value has the wrong type.
    """

    epochs: int = 20
    batch_size: int = 8
    optimizer: str = "soap"
    learning_rate: float = 6e-3
    final_learning_rate: float = 1e-5
    warmup: int = 200
    weight_decay: float = 0.0
    max_gradient_norm: float = 2.0
    ema_decay: float = 0.999
    force_scale: float = 0.1
    energy_scale: float = 0.02
    energy_weight: float = 0.02
    final_energy_weight: float = 0.5
    stress_scale: float = 0.005
    stress_weight: float = 0.1
    atomic_energy_scale: float = 0.05
    atomic_energy_weight: float = 0.0
    interaction_scale: float = 0.02
    interaction_weight: float = 1.0
    conformer_scale: float = 0.02
    conformer_weight: float = 1.0
    validate_every: int = 1000
    validation_structures: int = 1000
    split: str = "molecule"
    split_seed: int = 0
    seed: int = 0
    gradient: str = "autograd"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            if isinstance(default, float) and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not type(default):
                kind = {int: "an integer", float: "a number", str: "a text"}[type(default)]
                raise TypeError(f"{field.name} must be {kind}; given {value!r}.")
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be finite; given {value}.")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; given {getattr(self, name)}.")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; given {getattr(self, name)}.")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; given {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1); given {self.ema_decay}.")
        choices = (("optimizer", OPTIMIZERS), ("split", SPLITS), ("gradient", GRADIENTS))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; given '{getattr(self, name)}'.")


#: Keys that the table [architecture] may set; the elements come from the data.
ARCHITECTURE_KEYS = tuple(
    field.name for field in dataclasses.fields(Architecture) if field.name != "elements"
)


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read settings, and changes of the architecture, from a TOML file.

    Parameters
    ----------
    path : path
        Its keys are the attributes of :class:`TrainingSettings`; those of the table
        ``[architecture]`` are the attributes of :class:`ase_student.student.Architecture`, except
        the elements.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not TOML or has an unknown key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of settings at '{path}'.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not TOML: {error}.") from error
    architecture = content.pop("architecture", {})
    if not isinstance(architecture, dict):
        raise ValueError(f"{path}: [architecture] must be a table.")
    names = [field.name for field in dataclasses.fields(TrainingSettings)]
    for section, allowed, place in (
        (content, names, ""),
        (architecture, ARCHITECTURE_KEYS, " in [architecture]"),
    ):
        unknown = sorted(section.keys() - set(allowed))
        if unknown:
            raise ValueError(
                f"{path}: unknown key '{unknown[0]}'{place}; allowed: {', '.join(allowed)}."
                f"{suggestion(unknown[0], allowed)}"
            )
    return content, architecture


def architecture_of(
    name: str, elements: tuple[int, ...], changes: dict[str, Any] | None = None
) -> Architecture:
    """Return the shape of a student by name, for some elements.

    Parameters
    ----------
    name : str
        Key of `SHAPES`.
    elements : tuple of int
        Atomic numbers, ascending.
    changes : dict, optional
        Other values for attributes of the architecture.
    """
    values: dict[str, Any] = {"inner_cutoff": INNER_CUTOFF, **SHAPES[name], **(changes or {})}
    return Architecture(elements=elements, **values)
