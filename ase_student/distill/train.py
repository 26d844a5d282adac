"""Train a student on labelled structures."""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

# Within the parameter counts that the names stand for: 427,292, 77,203 and 21,459.
SHAPES: dict[str, dict[str, int]] = {
    "original": {
        "features": 128,
        "blocks": 3,
        "hidden": 80,
        "n_rbf": 16,
        "message_channels": 64,
    },
    "tiny": {"features": 64, "blocks": 2, "hidden": 48, "n_rbf": 12, "message_channels": 32},
    "ultra-tiny": {"features": 32, "blocks": 2, "hidden": 24, "n_rbf": 10, "message_channels": 16},
}


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    epochs : int
        Passes over the training set.
    batch_size : int
        Structures in a batch.
    learning_rate : float
        Highest rate of Adam, reached after `warmup` steps, then lowered along half a cosine.
    final_learning_rate : float
    warmup : int
        Steps.
    max_gradient_norm : float
        Longer gradients are shortened to this length.
    ema_decay : float
        Weights of the result are an exponential moving average over about 1 / (1 - decay) steps.
    force_scale : float
        eV/Å. Force errors count quadratically below and linearly above.
    energy_scale : float
        eV per √atom, the same for the error of the total energy.
    energy_weight : float
        Of the energy term relative to the force term.
    seed : int
        Of the weights, the order of the data and the split.

    Raises
    ------
    ValueError
        If a value cannot be meant.
    """

    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    final_learning_rate: float = 1e-5
    warmup: int = 500
    max_gradient_norm: float = 2.0
    ema_decay: float = 0.999
    force_scale: float = 0.3
    energy_scale: float = 0.02
    energy_weight: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; given {getattr(self, name)}.")
        for name in ("learning_rate", "max_gradient_norm", "force_scale", "energy_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; given {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1); given {self.ema_decay}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("dataset", type=Path, nargs="+", help="labelled HDF5 files")
    parser.add_argument("--student", choices=SHAPES, default="tiny", help="shape of the network")
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="folder of the run")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--threads", type=int, help="CPU threads")
    for field in dataclasses.fields(Settings):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"default {field.default}",
        )


def run(arguments: argparse.Namespace) -> str:
    """Train as the command line says, going on where an earlier run stopped."""
    missing = [path for path in arguments.dataset if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no data set at '{missing[0]}'.")
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    try:
        from ase_student.backends.devices import set_threads, torch_device
        from ase_student.distill.training import Training
    except ModuleNotFoundError as error:
        raise ImportError(
            f'training needs {error.name}: pip install "ase-student[distill]"'
        ) from error
    set_threads(arguments.threads)
    training = Training(
        arguments.dataset,
        arguments.student,
        arguments.folder,
        settings,
        torch_device(arguments.device),
    )
    lines = [f"{arguments.folder / 'weights.safetensors'}: errors on held-out molecules"]
    for source, row in training.run()["test"].items():
        lines.append(
            f"  {source:10s} force RMSE {row['force_rmse']:.4f} eV/Å, R² {row['force_r2']:.5f}, "
            f"energy MAE {1000 * row['energy_mae']:.2f} meV/atom, "
            f"{row['structures']:.0f} structures"
        )
    return "\n".join(lines)
