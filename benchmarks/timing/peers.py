"""Other potentials (peers) as ASE calculators, to compare their times with those of students.

The package of a peer is imported only when the peer is opened. A peer without weights gets random
weights from a fixed seed: its times are right, its energies have no meaning.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase.data import atomic_numbers

#: Elements of the organic models, in the order of their atomic numbers.
ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
#: The fastest peer.
NEP = "NEP, size of NEP89"
CUTOFF = 5.0


def open_peer(name: str, device: str, threads: int) -> Any:
    """Return a calculator.

    Parameters
    ----------
    name : str
        A key of `PEERS`.
    device : str
        'cpu' or 'cuda'.
    threads : int
        CPU threads.

    Raises
    ------
    ImportError
        If the package of the peer is not installed.
    ValueError
        If there is no peer of this name, or it does not run on the device.
    """
    if name not in PEERS:
        choices = ", ".join(f"'{choice}'" for choice in PEERS)
        raise ValueError(f"no peer named '{name}'; available: {choices}.")
    package, open_calculator = PEERS[name]
    try:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        return open_calculator(device)
    except ImportError as error:
        raise ImportError(f"peer '{name}' needs {package}: pip install {package}") from error


def _painn(device: str) -> Any:
    """Return SchNetPack's PaiNN with the width and the number of blocks of 'tiny'."""
    import torch
    from torch.utils.data import dataloader

    # SchNetPack uses a type variable that later versions of torch no longer define there.
    if not hasattr(dataloader, "T_co"):
        dataloader.__dict__["T_co"] = TypeVar("T_co", covariant=True)
    from schnetpack import atomistic, nn
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.model import NeuralNetworkPotential
    from schnetpack.representation import PaiNN
    from schnetpack.transform import MatScipyNeighborList, SkinNeighborList

    class Calculator(SpkCalculator):  # type: ignore[misc]
        # The method of the base class reads a pickled file.
        def _load_model(self, model: Any) -> Any:
            return model.eval()

    width = 64
    network = NeuralNetworkPotential(
        representation=PaiNN(
            n_atom_basis=width,
            n_interactions=2,
            radial_basis=nn.GaussianRBF(n_rbf=12, cutoff=CUTOFF),
            cutoff_fn=nn.CosineCutoff(CUTOFF),
        ),
        input_modules=[atomistic.PairwiseDistances()],
        output_modules=[
            atomistic.Atomwise(n_in=width, output_key="energy"),
            atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )
    neighbors = SkinNeighborList(MatScipyNeighborList(cutoff=CUTOFF), cutoff_skin=0.5)
    return Calculator(
        network, neighbors, energy_unit="eV", device=torch.device(device), dtype=torch.float32
    )


def _so3lr(device: str) -> Any:
    """Return SO3LR, the teacher, as the calculator of its package."""
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    return SO3LRCalculator(device=device, default_dtype="float32")


def _gfn2_xtb(device: str) -> Any:
    from tblite.ase import TBLite

    if device != "cpu":
        raise ValueError(f"peer 'GFN2-xTB' runs on the CPU, not on '{device}'.")
    return TBLite(method="GFN2-xTB", verbosity=0)


def _mace(device: str) -> Any:
    """Return MACE with the sizes of MACE-OFF23 small (arXiv:2312.15211) and random weights."""
    import torch

    # The file of e3nn's constants holds slices, which torch does not load by default.
    torch.serialization.add_safe_globals([slice])
    from e3nn import o3
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE, interaction_classes

    network = ScaleShiftMACE(
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        r_max=4.5,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps("96x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=15.0,
        atomic_numbers=[atomic_numbers[symbol] for symbol in ELEMENTS],
        correlation=3,
        gate=torch.nn.functional.silu,
    ).to(torch.float32)
    return MACECalculator(models=[network], device=device, default_dtype="float32")


def _ani(device: str) -> Any:
    """Return an ensemble of eight networks with the sizes of ANI-2x and random weights."""
    from torchani.arch import Assembler

    assembler = Assembler(periodic_table_index=True)
    assembler.set_symbols(("H", "C", "N", "O", "S", "F", "Cl"))
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial="ani2x", angular="ani2x", strategy="pyaev")
    assembler.set_atomic_networks(ctor="ani2x")
    assembler.set_neighborlist("all_pairs")
    assembler.set_gsaes_as_self_energies("wb97x-631gd")
    return assembler.assemble(8).requires_grad_(False).to(device).ase()


def nep_model(elements: Sequence[str], seed: int = 0) -> str:
    """Return the file content of a NEP with the sizes of NEP89 and random parameters.

    NEP89 (arXiv:2504.21286) has cutoffs of 6 and 5 Å, 5 radial and 5 angular functions from 9
    basis functions each, terms of up to five bodies, 35 descriptors and 80 neurons per element.
    """
    n_functions, n_basis, n_neurons = 5, 9, 80
    n_descriptors = n_functions + n_functions * (4 + 1 + 1)
    n_network = (n_descriptors + 2) * n_neurons * len(elements) + 1
    n_coefficients = 2 * len(elements) ** 2 * n_functions * n_basis
    parameters = 0.1 * np.random.default_rng(seed).standard_normal(n_network + n_coefficients)
    header = (
        f"nep4_zbl {len(elements)} {' '.join(elements)}",
        "zbl 0.5 1",
        "cutoff 6 5 200 150",
        f"n_max {n_functions - 1} {n_functions - 1}",
        f"basis_size {n_basis - 1} {n_basis - 1}",
        "l_max 4 2 1",
        f"ANN {n_neurons} 0",
    )
    numbers = [f"{value:.7e}" for value in (*parameters, *np.full(n_descriptors, 0.1))]
    return "\n".join([*header, *numbers]) + "\n"


def _nep(device: str) -> Any:
    """Return a NEP with the eight elements of the students; it runs on the CPU only."""
    if device != "cpu":
        raise ValueError(f"peer 'NEP' is timed on the CPU, not on '{device}'.")
    from calorine.calculators import CPUNEP

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "nep.txt")
    path.write_text(nep_model(ELEMENTS[:8]), encoding="ascii")
    calculator = CPUNEP(str(path))
    # The calculator reads the file at its first calculation.
    weakref.finalize(calculator, folder.cleanup)
    return calculator


#: Peers that treat every structure as periodic. A molecule gets a cell much larger than itself.
PERIODIC = {NEP}
#: Name of a peer to its package and to a function of a device that returns the calculator.
PEERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "SchNetPack PaiNN, 64 × 2": ("schnetpack", _painn),
    "SO3LR": ("so3krates-torch", _so3lr),
    "GFN2-xTB": ("tblite", _gfn2_xtb),
    "MACE, size of MACE-OFF small": ("mace-torch", _mace),
    "TorchANI, size of ANI-2x": ("torchani", _ani),
    NEP: ("calorine", _nep),
}
