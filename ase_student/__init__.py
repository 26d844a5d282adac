"""Small, fast students of accurate force fields, as an ASE calculator."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_student.calculator import StudentCalculator
    from ase_student.checkpoint import load_student, save_student
    from ase_student.extrapolation.guard import OutsideTrainingError, OutsideTrainingWarning
    from ase_student.provenance import __version__ as __version__
    from ase_student.student import Student

__all__ = [
    "OutsideTrainingError",
    "OutsideTrainingWarning",
    "Student",
    "StudentCalculator",
    "load_student",
    "save_student",
]

# Loaded when first used, so that importing the package is quick.
_MODULES = {
    "StudentCalculator": "ase_student.calculator",
    "Student": "ase_student.student",
    "OutsideTrainingError": "ase_student.extrapolation.guard",
    "OutsideTrainingWarning": "ase_student.extrapolation.guard",
    "load_student": "ase_student.checkpoint",
    "save_student": "ase_student.checkpoint",
    "__version__": "ase_student.provenance",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ase_student' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
