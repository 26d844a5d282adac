"""A student: weights and their metadata, without any machine-learning framework.

``weights.safetensors`` is the only source. It holds the tensors and, as JSON in the file's
metadata, the architecture, elements, reference energies, units, teacher, training settings and
metrics, and the SHA-256 of all of that, which is checked when it is read. ONNX and TorchScript
files are made from it and contain the SHA-256 of its header and tensors.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from ase.data import chemical_symbols

FORMAT_VERSION = 1
UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "virials": "eV", "stress": "eV/Å³"}
#: Å. Largest cutoff of a student; with a larger one, neighbors would fill the memory.
LARGEST_CUTOFF = 100.0
WIDTHS = ("features", "blocks", "hidden", "n_rbf", "element_channels", "message_channels")


@dataclass(frozen=True)
class Architecture:
    """Shape of a PaiNN student; everything that is needed to build the network.

    Attributes
    ----------
    elements : tuple of int
        Atomic numbers that the student knows, ascending.
    features : int
        Number of scalar and of vector features of an atom.
    blocks : int
        Number of interaction and update blocks, including the element interaction.
    hidden : int
        Width of the hidden layers in messages and updates.
    n_rbf : int
        Number of radial functions.
    element_channels : int
        Number of channels that represent the elements in the first interaction.
    message_channels : int
        Number of channels of the messages in the later interactions.
    tensor_channels : int
        Number of channels of second moments of the surroundings in the first interaction; 0 for
        none.
    cutoff : float
        Å.
    inner_cutoff : float
        Fraction of the sum of two atoms' covalent radii. The network ignores pairs that are closer,
        and takes full account of pairs beyond 1.2 times this distance: at distances without
        training data, only the repulsion remains. 0 for none.
    """

    elements: tuple[int, ...]
    features: int = 64
    blocks: int = 2
    hidden: int = 48
    n_rbf: int = 12
    element_channels: int = 8
    message_channels: int = 32
    tensor_channels: int = 0
    cutoff: float = 5.0
    inner_cutoff: float = 0.0
    family: ClassVar[str] = "painn"

    def __post_init__(self) -> None:
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"elements must be ascending and unique; given {self.elements}.")
        if not all(1 <= number <= 118 for number in self.elements):
            raise ValueError(f"elements must be atomic numbers 1 to 118; given {self.elements}.")
        for name in WIDTHS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; given {getattr(self, name)}.")
        if self.tensor_channels < 0:
            raise ValueError(f"tensor_channels must not be negative; given {self.tensor_channels}.")
        if self.features % 2:
            raise ValueError(f"features must be even; given {self.features}.")
        if not 0 < self.cutoff <= LARGEST_CUTOFF:
            raise ValueError(
                f"cutoff must be positive and at most {LARGEST_CUTOFF:g} Å; given {self.cutoff} Å."
            )
        if not 0 <= self.inner_cutoff < 1:
            raise ValueError(f"inner_cutoff must be 0 to 1, 1 excluded; given {self.inner_cutoff}.")


@dataclass(frozen=True)
class Student:
    """A trained student.

    Attributes
    ----------
    architecture : Architecture
        May be the architecture of a first-generation checkpoint (:mod:`ase_student.legacy`).
    tensors : mapping of str to ndarray
        The network's parameters by their names in the torch module.
    reference_energies : mapping of int to float
        Energy in eV of an atom of each element that is added to the network's, by atomic number.
    metadata : dict
        Its origin: teacher, data hash, training settings, metrics. JSON types only.
    """

    architecture: Any
    tensors: Mapping[str, np.ndarray]
    reference_energies: Mapping[int, float]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the student knows."""
        return tuple(self.architecture.elements)

    @property
    def cutoff(self) -> float:
        """Cutoff in Å."""
        return float(self.architecture.cutoff)

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        counted = getattr(self.architecture, "n_parameters", None)
        return counted or sum(tensor.size for tensor in self.tensors.values())

    def header(self) -> dict[str, Any]:
        """Return everything except the tensors and the metadata, as JSON types."""
        architecture = dataclasses.asdict(self.architecture)
        # Left out, so that older students without tensor channels keep their SHA-256.
        if architecture.get("tensor_channels") == 0:
            del architecture["tensor_channels"]
        return {
            "format_version": FORMAT_VERSION,
            "family": self.architecture.family,
            "architecture": architecture,
            "cutoff": self.cutoff,
            "elements": [chemical_symbols[number] for number in self.elements],
            "reference_energies": {
                chemical_symbols[number]: energy
                for number, energy in sorted(self.reference_energies.items())
            },
            "units": UNITS,
        }

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the header and the tensors, on which the student's function depends."""
        digest = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()
