"""Teachers for materials, whose weights are part of the package that runs them."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version

from ase import Atoms

from ase_student.potentials.base import Evaluation, is_crystal
from ase_student.potentials.calculator import CalculatorTeacher


def sevennet() -> CalculatorTeacher:
    """Return SevenNet-0 (Park et al., JCTC 2024, doi 10.1021/acs.jctc.4c00190) as a teacher."""
    return _sevennet("sevennet", "7net-0")


def sevennet_l3i5() -> CalculatorTeacher:
    """Return SevenNet-l3i5, more accurate than SevenNet-0 and slower, as a teacher."""
    return _sevennet("sevennet-l3i5", "7net-l3i5")


def _sevennet(name: str, model: str) -> CalculatorTeacher:
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        raise ImportError(
            f'the teacher {name} needs sevenn: pip install "ase-student[sevennet]"'
        ) from error
    with warnings.catch_warnings():
        # The warning recommends kernels that need a GPU.
        warnings.simplefilter("ignore")
        loaded = SevenNetCalculator(model, device="cpu")

    def make() -> SevenNetCalculator:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SevenNetCalculator(loaded.model, file_type="model_instance", device="cpu")

    return CalculatorTeacher(
        name,
        make,
        {"package": f"sevenn {version('sevenn')}", "torch": version("torch"), "model": model},
        elements=loaded.type_map,
    )


class ChgnetTeacher(CalculatorTeacher):
    """CHGNet (Deng et al., Nat. Mach. Intell. 2023, doi 10.1038/s42256-023-00716-3).

    CHGNet treats every structure as periodic along three axes; other structures get no label.

    Raises
    ------
    ImportError
        If chgnet is not installed.
    """

    def __init__(self) -> None:
        try:
            from chgnet.model.dynamics import CHGNetCalculator
            from chgnet.model.model import CHGNet
        except ImportError as error:
            raise ImportError(
                'the teacher chgnet needs chgnet: pip install "ase-student[chgnet]"'
            ) from error
        with redirect_stdout(io.StringIO()):
            model = CHGNet.load(use_device="cpu", verbose=False)

        def make() -> CHGNetCalculator:
            with redirect_stdout(io.StringIO()):
                return CHGNetCalculator(
                    model,
                    use_device="cpu",
                    # Isolated atoms are outside of its training data.
                    on_isolated_atoms="error",
                    return_site_energies=True,
                )

        settings = {
            "package": f"chgnet {version('chgnet')}",
            "torch": version("torch"),
            "model": str(model.version),
        }
        # Its training data, trajectories of the Materials Project, lack polonium to radium.
        super().__init__("chgnet", make, settings, elements={*range(1, 84), *range(89, 95)})

    def _evaluate(self, atoms: Atoms) -> Evaluation:
        if not is_crystal(atoms):
            raise ValueError("CHGNet knows only structures that are periodic along three axes")
        return super()._evaluate(atoms)
