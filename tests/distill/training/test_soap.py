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
#: Of two trajectories, relative to their length. Directions in which the first gradients vanish are
#: rounding errors made as long as the others.
DIFFERENCE = 1e-3


@pytest.fixture(scope="module")
def compiled() -> CompiledNetwork:
    torch.manual_seed(0)
    changes = {"features": 20, "message_channels": 24}
    shape = architecture_of("ultra-tiny", ELEMENTS, changes)
    return CompiledNetwork(PaiNN(shape, dict.fromkeys(ELEMENTS, 0.0)))


class Run:
    """Steps of one optimizer with gradients that are the same for every run."""

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
    plain, fast = Run(compiled, False), Run(compiled, True)
    assert type(plain.optimizer) is not type(fast.optimizer)
    # Past two changes of the eigenbases.
    expected, found = plain.advance(0, 25), fast.advance(0, 25)
    assert (found - expected).norm() < DIFFERENCE * (expected - plain.start).norm()
    for weight, other in zip(plain.network.parameters(), fast.network.parameters(), strict=True):
        for key, statistics in plain.optimizer.state[weight].items():
            if key in ("GG", "exp_avg"):
                torch.testing.assert_close(
                    fast.optimizer.state[other][key], statistics, rtol=1e-3, atol=1e-4
                )


@pytest.mark.parametrize("was_compiled", [True, False])
def test_checkpoints_are_gone_on_from(compiled: CompiledNetwork, was_compiled: bool) -> None:
    begun = Run(compiled, was_compiled)
    begun.advance(0, 13)
    resumed = Run(compiled, True)
    resumed.network.load_state_dict(begun.network.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(begun.optimizer.state_dict()))
    before = begun.weights()
    expected, found = begun.advance(13, 25), resumed.advance(13, 25)
    if was_compiled:
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert (found - expected).norm() < DIFFERENCE * (expected - before).norm()
