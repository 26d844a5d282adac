"""First-generation students: reading of their checkpoints, and their network.

All code for these networks is in this file, so that it can be deleted later. The networks have
serious defects (see `warn_first_generation`); they are supported only so that old results can be
reproduced and compared with.

The function, for a receiver i, senders j, r = r_j - r_i, d = |r| and u = r / (d + 1e-8):

- basis      b_k = exp(-((d - center_k) / width_k)^2) * (cos(pi d / 5) + 1) / 2
- filter     (w1, w2, w3) = Linear(SiLU(Linear(b))), pairs with d >= 5 Å left out
- message    s_i += sum_j s_j w1,   v_i += sum_j v_j w2 + u w3
- update     (ds, a, b) = MLP([s, |v|]),   s += ds,   v = v a + (M v) b
- energy     sum_i MLP(s_i)

M is a 3 x 3 matrix on the Cartesian axis. The networks were made for molecules; here periodic
images are also neighbors.
"""

import io
import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_student.archives import check_archive
from ase_student.callers import stacklevel
from ase_student.student import Student

CUTOFF = 5.0
PREFIXES = ("model.", "module.", "_orig_mod.")
# Below this squared length, v is treated as zero in the derivative of |v|. At an atom with enough
# symmetry (the carbon of CH4) v is only rounding noise, whose direction would otherwise cause a
# force of ordinary size that differs between machines.
ZERO_NORM_SQUARED = 1e-10


@dataclass(frozen=True)
class LegacyArchitecture:
    """Sizes of a first-generation network, all inferred from its tensors."""

    hidden: int
    n_blocks: int
    n_rbf: int
    max_z: int
    cutoff: float = CUTOFF
    family: ClassVar[str] = "first-generation"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the network."""
        h = self.hidden
        shapes = {
            "embedding.weight": (self.max_z + 1, h),
            "rbf.centers": (self.n_rbf,),
            "rbf.widths": (self.n_rbf,),
        }
        layers = {"energy_head.0": (h // 2, h), "energy_head.2": (h // 4, h // 2)}
        layers["energy_head.4"] = (1, h // 4)
        for block in range(self.n_blocks):
            prefix = f"interactions.{block}."
            layers[prefix + "message.rbf_to_scalar.0"] = (h, self.n_rbf)
            layers[prefix + "message.rbf_to_scalar.2"] = (3 * h, h)
            layers[prefix + "update.update_mlp.0"] = (h, 2 * h)
            layers[prefix + "update.update_mlp.2"] = (3 * h, h)
            shapes[prefix + "update.mixing_matrix"] = (3, 3)
        for name, (n_out, n_in) in layers.items():
            shapes[name + ".weight"] = (n_out, n_in)
            shapes[name + ".bias"] = (n_out,)
        return shapes

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers for which the network has a row.

        A checkpoint does not record which rows were trained; the data set that was used has H, C,
        N, O, F, P, S and Cl.
        """
        return tuple(range(1, min(self.max_z, 118) + 1))

    @property
    def n_parameters(self) -> int:
        """Number of trained values, without those of the basis."""
        return sum(math.prod(s) for name, s in self.shapes.items() if not name.startswith("rbf."))


# --- reading -----------------------------------------------------------------------------------


def load_legacy_student(path: str | Path) -> Student:
    """Load a first-generation checkpoint as a student, with a warning about its defects.

    Its energies include those of the elements, so the reference energies are 0. Errors are those of
    `read_checkpoint`.
    """
    architecture, tensors = read_checkpoint(path)
    warn_first_generation(Path(path).name)
    references = dict.fromkeys(architecture.elements, 0.0)
    return Student(architecture, tensors, references, {"checkpoint": Path(path).name})


def read_checkpoint(path: str | Path) -> tuple[LegacyArchitecture, dict[str, np.ndarray]]:
    """Read a first-generation checkpoint.

    The state dict may be under `model_state_dict`, under `state_dict` or be the whole file, and
    its keys may start with any sequence of `PREFIXES`. All other content is ignored, including the
    configuration, because it may be that of the training.

    Parameters
    ----------
    path : path to a `.pt` file

    Returns
    -------
    architecture : LegacyArchitecture
    tensors : dict of arrays
        By name without prefixes, in the precision of the file (half precision becomes float32).

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file has another format or needs pickled code, or if a tensor is missing, unknown,
        of another shape, or has NaN or infinite values.
    """
    path = Path(path)
    content = _load_weights(path)
    try:
        tensors = _state_dict(content)
        architecture = _infer_architecture(tensors)
        check_tensors(architecture, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return architecture, tensors


def _load_weights(path: Path) -> object:
    """Return the content of a file, read with `torch.load(weights_only=True)`."""
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at '{path}'.")
    if not path.is_file():
        raise ValueError(f"{path}: is not a file; give the path of a checkpoint.")
    # The file is read once, so that the checked content is the content that is loaded.
    content = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(content)):
        members = check_archive(content, str(path))
        # torch.load would pass a TorchScript archive to torch.jit.
        if any(name.rpartition("/")[2] == "constants.pkl" for name in members):
            raise ValueError(f"{path}: is a TorchScript file, not a first-generation checkpoint.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # The unpickler raises exceptions of many types for a damaged file or another format.
    except Exception as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            message = f"{path}: is not a PyTorch checkpoint, or is damaged."
        else:
            message = (
                f"{path}: needs pickle to build '{code[1]}', which could run any code, so it is "
                "not loaded; save the state dict alone and load that."
            )
        raise ValueError(message) from None


def _state_dict(content: object) -> dict[str, np.ndarray]:
    """Return the tensors of the state dict in a checkpoint, by their names without prefixes."""
    for wrapper in ("model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise ValueError("holds no state dict (a dictionary of named tensors).")
    tensors: dict[str, np.ndarray] = {}
    for key, value in content.items():
        name = _strip_prefixes(str(key))
        if name in tensors:
            raise ValueError(f"tensor '{name}' is there twice, once as '{key}'.")
        if not isinstance(value, Tensor):
            raise ValueError(f"'{name}' should be a tensor of floats, not {type(value).__name__}.")
        # A tensor on a device other than the requested one (meta) has no values.
        if not value.is_floating_point() or value.device.type != "cpu":
            given_type = f"{value.dtype} on device '{value.device}'"
            raise ValueError(f"'{name}' should be a tensor of floats, not of {given_type}.")
        dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
        tensors[name] = value.detach().to_dense().to(dtype).contiguous().numpy()
    return tensors


def _strip_prefixes(key: str) -> str:
    """Remove the prefixes that trainers and wrappers add to a tensor's name.

    >>> _strip_prefixes("module._orig_mod.model.rbf.centers")
    'rbf.centers'
    >>> _strip_prefixes("head.model.weight")
    'head.model.weight'
    """
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _infer_architecture(tensors: Mapping[str, np.ndarray]) -> LegacyArchitecture:
    """Return the sizes of a network, inferred from the shapes of its tensors."""
    for name, axes in {"embedding.weight": 2, "rbf.centers": 1}.items():
        if name not in tensors:
            raise ValueError(
                f"tensor '{name}' is missing, so this is not a first-generation checkpoint."
            )
        shape = tensors[name].shape
        if len(shape) != axes or 0 in shape:
            raise ValueError(f"tensor '{name}' has shape {shape}; expected {axes} non-empty axes.")
    blocks = {match[1] for name in tensors if (match := re.match(r"interactions\.(\d+)\.", name))}
    if not blocks:
        raise ValueError("no tensor 'interactions.0.…': expected at least one interaction block.")
    n_elements, hidden = tensors["embedding.weight"].shape
    if hidden < 4:
        raise ValueError(f"'embedding.weight' has {hidden} features; expected at least 4.")
    return LegacyArchitecture(
        hidden=hidden,
        n_blocks=len(blocks),
        n_rbf=len(tensors["rbf.centers"]),
        max_z=n_elements - 1,
    )


def check_tensors(architecture: LegacyArchitecture, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, naming the tensor, if a tensor is missing, not finite or of wrong shape."""
    expected = architecture.shapes
    for name in tensors:
        if name not in expected:
            raise ValueError(
                f"tensor '{name}' is unknown; a first-generation network with "
                f"{architecture.n_blocks} blocks has none of that name."
            )
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"tensor '{name}' is missing; expected shape {shape}.")
        if tensors[name].shape != shape:
            raise ValueError(
                f"tensor '{name}' has shape {tensors[name].shape}; expected {shape} "
                f"({architecture.hidden} features, {architecture.n_rbf} radial functions)."
            )
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"tensor '{name}' holds NaN or infinite values; expected finite ones.")
    if not (tensors["rbf.widths"] > 0).all():
        raise ValueError("tensor 'rbf.widths' holds values <= 0 Å; expected positive widths.")


def warn_first_generation(name: str) -> None:
    """Warn about the defects of a first-generation network.

    The figures were measured on the original weights in float64: for rotations of eight small
    molecules, and for two waters that move apart across the cutoff.

    Parameters
    ----------
    name : str
        Name of the student in the message.
    """
    warnings.warn(
        f"'{name}' is a first-generation student and its energies are not physical: rotating a "
        "molecule changes them by up to 0.13 eV (128 and 64 features) or 0.47 eV (32 features), "
        f"and they jump when a pair of atoms crosses the cutoff of {CUTOFF:g} Å (two waters: "
        "0.025, 0.20 and 0.45 eV for 128, 64 and 32 features), so molecular dynamics with it does "
        "not conserve energy; elements other than H, C, N, O, F, P, S and Cl were not trained at "
        "all; use it only to reproduce old results.",
        UserWarning,
        stacklevel=stacklevel(),
    )


# --- the network -------------------------------------------------------------------------------


class _Basis(torch.nn.Module):
    centers: Tensor
    widths: Tensor

    def __init__(self, n_rbf: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(n_rbf))
        self.register_buffer("widths", torch.ones(n_rbf))


class _Message(torch.nn.Module):
    def __init__(self, n_rbf: int, hidden: int) -> None:
        super().__init__()
        self.rbf_to_scalar = _mlp(n_rbf, hidden, 3 * hidden)


class _Update(torch.nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.update_mlp = _mlp(2 * hidden, hidden, 3 * hidden)
        self.mixing_matrix = torch.nn.Parameter(torch.eye(3))


class _Interaction(torch.nn.Module):
    def __init__(self, n_rbf: int, hidden: int) -> None:
        super().__init__()
        self.message = _Message(n_rbf, hidden)
        self.update = _Update(hidden)

    def forward(
        self, s: Tensor, v: Tensor, neighbors: Tensor, units: Tensor, basis: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        w1, w2, w3 = (self.message.rbf_to_scalar(basis) * inside).chunk(3, dim=-1)
        v = v + (v[neighbors] * w2.unsqueeze(2) + units.unsqueeze(-1) * w3.unsqueeze(2)).sum(1)
        s = s + (s[neighbors] * w1).sum(1)
        ds, a, b = self.update.update_mlp(torch.cat([s, _norm(v)], dim=-1)).chunk(3, dim=-1)
        return s + ds, v * a.unsqueeze(1) + (self.update.mixing_matrix @ v) * b.unsqueeze(1)


class LegacyNetwork(torch.nn.Module):
    """The network as it was trained: energies only, differentiable by autograd.

    Its state dict has the names of the checkpoints.
    """

    def __init__(self, architecture: LegacyArchitecture) -> None:
        super().__init__()
        n_rbf, hidden = architecture.n_rbf, architecture.hidden
        self.cutoff = architecture.cutoff
        self.embedding = torch.nn.Embedding(architecture.max_z + 1, hidden)
        self.rbf = _Basis(n_rbf)
        self.interactions = torch.nn.ModuleList(
            _Interaction(n_rbf, hidden) for _ in range(architecture.n_blocks)
        )
        self.energy_head = _mlp(hidden, hidden // 2, hidden // 4, 1)

    def forward(
        self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor
    ) -> Tensor:
        """Return the energy of each atom; arguments as for `LegacyPotential.forward`."""
        vectors = edge_vectors(positions, neighbors, offsets).to(self.embedding.weight.dtype)
        distances = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        units = vectors / (distances + 1e-8)
        basis = torch.exp(-(((distances - self.rbf.centers) / self.rbf.widths) ** 2))
        basis = basis * 0.5 * (torch.cos(math.pi * distances / self.cutoff) + 1)
        inside = distances < self.cutoff
        s = self.embedding(numbers)
        v = s.new_zeros(s.shape[0], 3, s.shape[1])
        for interaction in self.interactions:
            s, v = interaction(s, v, neighbors, units, basis, inside)
        energies: Tensor = self.energy_head(s).squeeze(-1)
        return energies


def build_network(
    architecture: LegacyArchitecture,
    tensors: Mapping[str, np.ndarray],
    dtype: torch.dtype = torch.float32,
) -> LegacyNetwork:
    """Return the network with the weights of a checkpoint."""
    check_tensors(architecture, tensors)
    network = LegacyNetwork(architecture).to(dtype)
    network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in tensors.items()})
    return network.eval()


def build_legacy_network(student: Student, dtype: torch.dtype = torch.float32) -> LegacyNetwork:
    """Return the network of a student that `load_legacy_student` loaded."""
    return build_network(student.architecture, student.tensors, dtype)


def edge_vectors(positions: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
    """Return the vector from each atom to each neighbor, (n_atoms, n_neighbors, 3).

    In this order of operations the two directions of a pair get exactly opposite vectors, so
    that no pair can be inside the cutoff in one direction only.
    """
    return (positions[neighbors] - positions.unsqueeze(1)) + offsets


def _mlp(*widths: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.SiLU()]
    return torch.nn.Sequential(*layers[:-1])


def _linears(mlp: torch.nn.Sequential) -> list[torch.nn.Linear]:
    return [layer for layer in mlp if isinstance(layer, torch.nn.Linear)]


def _norm(v: Tensor) -> Tensor:
    """Return |v| over the Cartesian axis, with gradient 0 where |v| is zero up to rounding."""
    square = (v * v).sum(1)
    smooth = square > ZERO_NORM_SQUARED
    return torch.where(
        smooth, torch.sqrt(torch.where(smooth, square, 1.0)), torch.sqrt(square.detach())
    )


# --- forces by hand ----------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Geometry of the pairs, each (n_atoms, n_neighbors, ...)."""

    neighbors: Tensor
    units: Tensor
    directions: Tensor
    scale: Tensor
    inside: Tensor
    basis: Tensor
    basis_slope: Tensor


class _Saved(NamedTuple):
    """Values from the forward pass of a block that its backward pass needs.

    s and v are the input of the block; s1 and v1 are between its message and its update.
    """

    s: Tensor
    v: Tensor
    hidden: Tensor
    filters: Tensor
    s1: Tensor
    v1: Tensor


class LegacyPotential(torch.nn.Module):
    """Energies, forces and virials by a backward pass of gathers and sums over neighbors.

    The list has both directions of every pair, so that what an atom sends can be summed from its
    own row. There is no autograd and no scatter: the module can be scripted and exported to ONNX
    without changes.
    """

    centers: Tensor
    widths: Tensor
    wave_number: Tensor
    epsilon: Tensor
    zero: Tensor

    def __init__(self, network: LegacyNetwork) -> None:
        super().__init__()
        self.cutoff = network.cutoff
        self.embedding = network.embedding
        self.register_buffer("centers", network.rbf.centers)
        self.register_buffer("widths", network.rbf.widths)
        # Tensors with an axis because ONNX export keeps Python numbers in single precision, and
        # its optimizer drops the addition of a scalar of 1e-8 or less.
        constant = network.rbf.centers.new_tensor
        self.register_buffer("wave_number", constant([math.pi / self.cutoff]))
        self.register_buffer("epsilon", constant([1e-8]))
        # Zeros come from a multiplication: a traced torch.zeros stays on the device of the trace.
        self.register_buffer("zero", constant([0.0, 0.0, 0.0]))
        blocks = [m for m in network.interactions if isinstance(m, _Interaction)]
        self.blocks = torch.nn.ModuleList(_Block(block) for block in blocks)
        # In the order of use, because TorchScript treats blocks[::-1] like blocks.
        self.gradients = torch.nn.ModuleList(_BlockGradients(block) for block in reversed(blocks))
        self.head0, self.head1, self.head2 = _linears(network.energy_head)
        self.requires_grad_(False)

    def forward(
        self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute energies, forces and virials.

        Parameters
        ----------
        numbers : (n_atoms,) int64
        positions : (n_atoms, 3) float64, Å
        neighbors : (n_atoms, n_neighbors) int64
            Both directions of every pair; padding repeats the atom's own index.
        offsets : (n_atoms, n_neighbors, 3) float64, Å
            Lattice translation of the neighbor's image. Padding points beyond the cutoff.

        Returns
        -------
        energies : (n_atoms,) float64, eV
        forces : (n_atoms, 3) float, eV/Å
        virials : (n_atoms, 3, 3) float, eV
            Symmetric. Their sum divided by the volume is the stress, positive in tension.
        """
        vectors = edge_vectors(positions, neighbors, offsets).to(self.embedding.weight.dtype)
        pairs = self.pairs(vectors, neighbors)
        s = self.embedding(numbers)
        v = s.unsqueeze(1) * self.zero.unsqueeze(1)
        saved: list[_Saved] = []
        for block in self.blocks:
            s, v, saved_block = block(s, v, pairs)
            saved.append(saved_block)
        energies, gs = self.readout(s)

        gv = s.unsqueeze(1) * self.zero.unsqueeze(1)
        pair_gradients = vectors * self.zero
        for gradients in self.gradients:
            gs, gv, added = gradients(gs, gv, saved.pop(), pairs)
            pair_gradients = pair_gradients + added
        # The derivative with respect to a symmetric strain. The antisymmetric part is the change of
        # the energy under rotation, which is not zero for this network and is not part of a stress.
        virials = 0.25 * (pair_gradients.unsqueeze(-1) * vectors.unsqueeze(-2)).sum(1)
        virials = virials + virials.transpose(1, 2)
        return energies.to(torch.float64), pair_gradients.sum(1), virials

    def pairs(self, vectors: Tensor, neighbors: Tensor) -> _Pairs:
        """Return the geometry of the pairs that every block needs."""
        distances = torch.sqrt((vectors * vectors).sum(-1, keepdim=True))
        scale = 1.0 / (distances + self.epsilon)
        x = (distances - self.centers) / self.widths
        gauss = torch.exp(-x * x)
        phase = distances * self.wave_number
        envelope = 0.5 * (torch.cos(phase) + 1.0)
        envelope_slope = torch.sin(phase) * self.wave_number * -0.5
        return _Pairs(
            neighbors=neighbors,
            units=vectors * scale,
            directions=vectors / distances,
            scale=scale,
            inside=(distances < self.cutoff).to(vectors.dtype),
            basis=gauss * envelope,
            basis_slope=gauss * (envelope_slope - 2.0 * x / self.widths * envelope),
        )

    def readout(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy of each atom and its derivative with respect to s."""
        x = self.head0(s)
        y = self.head1(_silu(x))
        energies = self.head2(_silu(y)).squeeze(-1)
        gy = self.head2.weight * _silu_slope(y)
        return energies, ((gy @ self.head1.weight) * _silu_slope(x)) @ self.head0.weight


class _Block(torch.nn.Module):
    """The forward pass of an interaction block, which also returns what its gradients need."""

    def __init__(self, interaction: _Interaction) -> None:
        super().__init__()
        self.filter0, self.filter1 = _linears(interaction.message.rbf_to_scalar)
        self.update0, self.update1 = _linears(interaction.update.update_mlp)
        self.mixing = interaction.update.mixing_matrix

    def forward(self, s: Tensor, v: Tensor, pairs: _Pairs) -> tuple[Tensor, Tensor, _Saved]:
        hidden = self.filter0(pairs.basis)
        filters = self.filter1(_silu(hidden)) * pairs.inside
        w1, w2, w3 = filters.chunk(3, dim=-1)
        s1 = s + (s[pairs.neighbors] * w1).sum(1)
        # (n_atoms, n_neighbors, 3, hidden)
        sent = v[pairs.neighbors] * w2.unsqueeze(2) + pairs.units.unsqueeze(-1) * w3.unsqueeze(2)
        v1 = v + sent.sum(1)
        norm = torch.sqrt((v1 * v1).sum(1))
        update = self.update1(_silu(self.update0(torch.cat([s1, norm], dim=-1))))
        ds, a, b = update.chunk(3, dim=-1)
        v2 = v1 * a.unsqueeze(1) + (self.mixing @ v1) * b.unsqueeze(1)
        return s1 + ds, v2, _Saved(s, v, hidden, filters, s1, v1)


class _BlockGradients(torch.nn.Module):
    """The backward pass of one interaction block.

    A name that starts with g is the derivative of the total energy with respect to the rest of
    the name.
    """

    def __init__(self, interaction: _Interaction) -> None:
        super().__init__()
        self.filter0, self.filter1 = _linears(interaction.message.rbf_to_scalar)
        self.update0, self.update1 = _linears(interaction.update.update_mlp)
        self.mixing = interaction.update.mixing_matrix
        self.zero_norm_squared = ZERO_NORM_SQUARED

    def forward(
        self, gs: Tensor, gv: Tensor, saved: _Saved, pairs: _Pairs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return gs and gv of the block's input, and its contribution to dE/dr of each pair."""
        gs1, gv1 = self.update(gs, gv, saved.s1, saved.v1)
        gv1_j = gv1[pairs.neighbors]
        w1, w2, w3 = saved.filters.chunk(3, dim=-1)
        # The message of an atom reaches its neighbors through the same filter.
        gs = gs1 + (gs1[pairs.neighbors] * w1).sum(1)
        gv = gv1 + (gv1_j * w2.unsqueeze(2)).sum(1)

        # Both directions of a pair, of which u changes sign: with D = gv1_i - gv1_j,
        # dE/dd = (gs1_i s_j + gs1_j s_i) w1' + (gv1_i v_j + gv1_j v_i) w2' + (u D) w3'
        # and q = sum_f w3 D is multiplied by du/dr = (1 - (r / d) u) / (d + 1e-8).
        slope1, slope2, slope3 = self.filter_slopes(saved.hidden, pairs).chunk(3, dim=-1)
        scalar = gs1.unsqueeze(1) * saved.s[pairs.neighbors]
        scalar = scalar + saved.s.unsqueeze(1) * gs1[pairs.neighbors]
        vector = gv1.unsqueeze(1) * saved.v[pairs.neighbors] + saved.v.unsqueeze(1) * gv1_j
        difference = gv1.unsqueeze(1) - gv1_j
        along = (pairs.units.unsqueeze(-1) * difference).sum(2)
        radial = scalar * slope1 + vector.sum(2) * slope2 + along * slope3
        q = (difference * w3.unsqueeze(2)).sum(-1)
        turned = (q - pairs.directions * (pairs.units * q).sum(-1, keepdim=True)) * pairs.scale
        return gs, gv, pairs.directions * radial.sum(-1, keepdim=True) + turned

    def update(self, gs: Tensor, gv: Tensor, s1: Tensor, v1: Tensor) -> tuple[Tensor, Tensor]:
        """Return gs1 and gv1 from the derivatives with respect to the block's output."""
        square = (v1 * v1).sum(1)
        x = self.update0(torch.cat([s1, torch.sqrt(square)], dim=-1))
        _, a, b = self.update1(_silu(x)).chunk(3, dim=-1)
        g_out = torch.cat([gs, (gv * v1).sum(1), (gv * (self.mixing @ v1)).sum(1)], dim=-1)
        g_in = ((g_out @ self.update1.weight) * _silu_slope(x)) @ self.update0.weight
        gs1, g_norm = g_in.chunk(2, dim=-1)
        smooth = (square > self.zero_norm_squared).to(square.dtype)
        g_norm = g_norm * smooth / torch.sqrt(square.clamp(min=self.zero_norm_squared))
        gv1 = gv * a.unsqueeze(1) + self.mixing.t() @ (gv * b.unsqueeze(1))
        return gs + gs1, gv1 + v1 * g_norm.unsqueeze(1)

    def filter_slopes(self, hidden: Tensor, pairs: _Pairs) -> Tensor:
        """Return the derivatives of w1, w2, w3 with respect to d, side by side."""
        slopes = _silu_slope(hidden) * (pairs.basis_slope @ self.filter0.weight.t())
        return (slopes @ self.filter1.weight.t()) * pairs.inside


def build_potential(
    architecture: LegacyArchitecture,
    tensors: Mapping[str, np.ndarray],
    dtype: torch.dtype = torch.float32,
) -> LegacyPotential:
    """Return energies, forces and virials of a checkpoint as one module without autograd."""
    return LegacyPotential(build_network(architecture, tensors, dtype)).eval()


def build_legacy_potential(student: Student, dtype: torch.dtype = torch.float32) -> LegacyPotential:
    """Return the potential of a student that `load_legacy_student` loaded."""
    return build_potential(student.architecture, student.tensors, dtype)


# onnxruntime's Sigmoid is approximate, its Exp is not. If exp overflows, both are still correct.
def _silu(x: Tensor) -> Tensor:
    return x / (1.0 + torch.exp(-x))


def _silu_slope(x: Tensor) -> Tensor:
    sigmoid = 1.0 / (1.0 + torch.exp(-x))
    return sigmoid * (1.0 + x * (1.0 - sigmoid))
