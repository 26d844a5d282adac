"""Small, fast students of accurate force fields, as an ASE calculator."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_student.calculator import StudentCalculator
    from ase_student.student import Student, load_student, save_student

try:
    __version__ = version("ase-student")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = ["Student", "StudentCalculator", "load_student", "save_student"]

# Loaded when first used, so that importing the package is quick.
_MODULES = {
    "StudentCalculator": "ase_student.calculator",
    "Student": "ase_student.student",
    "load_student": "ase_student.student",
    "save_student": "ase_student.student",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ase_student' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
