"""The compiled optimizer: the same steps as those of pytorch_optimizer, and its checkpoints."""

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")
torch = pytest.importorskip("torch")

from ase_student.distill.training.settings import TrainingSettings, architecture_of  # noqa: E402
from ase_student.distill.training.trainer import make_optimizer  # noqa: E402
from ase_student.networks.kernels import CompiledNetwork  # noqa: E402
from ase_student.networks.painn import PaiNN  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiler")

ELEMENTS = (1, 6, 8)
#: Largest difference of two runs, relative to their length. Where the first gradients vanish, the
#: optimizer scales rounding errors to the length of other steps.
DIFFERENCE = 1e-3


@pytest.fixture(scope="module")
def compiled() -> CompiledNetwork:
    torch.manual_seed(0)
    changes = {"features": 20, "message_channels": 24}
    shape = architecture_of("ultra-tiny", ELEMENTS, changes)
    return CompiledNetwork(PaiNN(shape, dict.fromkeys(ELEMENTS, 0.0)))


class Run:
    """Steps of an optimizer with the same gradients in every run."""

    def __init__(self, compiled: CompiledNetwork, is_compiled: bool):
        self.network = copy.deepcopy(compiled.network)
        settings = TrainingSettings(weight_decay=0.1)
        self.optimizer = make_optimizer(self.network, settings, compiled if is_compiled else None)
        self.start = self.weights()

    def weights(self) -> Any:
        return torch.cat([weight.detach().flatten() for weight in self.network.parameters()])

    def advance(self, begin: int, end: int) -> Any:
        for step in range(begin, end):
            generator = torch.Generator().manual_seed(step)
            for weight in self.network.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            self.optimizer.step()
        return self.weights()


def test_steps_are_those_of_the_library(compiled: CompiledNetwork) -> None:
    library, compiled_run = Run(compiled, False), Run(compiled, True)
    assert type(library.optimizer) is not type(compiled_run.optimizer)
    # Long enough for two changes of the eigenbases.
    expected, weights = library.advance(0, 25), compiled_run.advance(0, 25)
    assert (weights - expected).norm() < DIFFERENCE * (expected - library.start).norm()
    for weight, compiled_weight in zip(
        library.network.parameters(), compiled_run.network.parameters(), strict=True
    ):
        for key, statistics in library.optimizer.state[weight].items():
            if key in ("GG", "exp_avg"):
                torch.testing.assert_close(
                    compiled_run.optimizer.state[compiled_weight][key],
                    statistics,
                    rtol=1e-3,
                    atol=1e-4,
                )


@pytest.mark.parametrize("was_compiled", [True, False])
def test_checkpoints_of_both_optimizers_are_resumed(
    compiled: CompiledNetwork, was_compiled: bool
) -> None:
    uninterrupted = Run(compiled, was_compiled)
    uninterrupted.advance(0, 13)
    resumed = Run(compiled, True)
    resumed.network.load_state_dict(uninterrupted.network.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(uninterrupted.optimizer.state_dict()))
    weights_at_checkpoint = uninterrupted.weights()
    expected, weights = uninterrupted.advance(13, 25), resumed.advance(13, 25)
    if was_compiled:
        np.testing.assert_array_equal(weights.numpy(), expected.numpy())
    assert (weights - expected).norm() < DIFFERENCE * (expected - weights_at_checkpoint).norm()
