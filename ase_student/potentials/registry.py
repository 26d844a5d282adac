"""Potentials by name: students, bundled teachers, classes of the user."""

from __future__ import annotations

import ast
import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_student.calculator import StudentCalculator
from ase_student.checkpoint import available_students, resolve_model
from ase_student.files import file_sha256
from ase_student.potentials.base import Potential, StudentPotential, Teacher, one_line
from ase_student.potentials.calculator import CalculatorTeacher


@dataclass(frozen=True)
class NamedTeacher:
    """A teacher with a short name.

    Attributes
    ----------
    path : str
        Import path of the class or function that creates it, as ``'package.module:Class'``.
    citation : str
        Name, license and publication, in Markdown; if empty, its name is used.
    """

    path: str
    citation: str = ""


TEACHERS = {
    "so3lr": NamedTeacher(
        "ase_student.potentials.so3lr:So3lrTeacher",
        "SO3LR (MIT license, Kabylda et al., JACS 2025, "
        "[doi:10.1021/jacs.5c09558](https://doi.org/10.1021/jacs.5c09558))",
    ),
    "gfn2-xtb": NamedTeacher(
        "ase_student.potentials.xtb:gfn2_xtb",
        "GFN2-xTB (Bannwarth, Ehlert and Grimme, JCTC 2019, "
        "[doi:10.1021/acs.jctc.8b01176](https://doi.org/10.1021/acs.jctc.8b01176))",
    ),
    "sevennet": NamedTeacher(
        "ase_student.potentials.materials:sevennet",
        "SevenNet-0 (MIT license, Park et al., JCTC 2024, "
        "[doi:10.1021/acs.jctc.4c00190](https://doi.org/10.1021/acs.jctc.4c00190))",
    ),
    "sevennet-l3i5": NamedTeacher("ase_student.potentials.materials:sevennet_l3i5"),
    "chgnet": NamedTeacher(
        "ase_student.potentials.materials:ChgnetTeacher",
        "CHGNet (modified BSD license, Deng et al., Nat. Mach. Intell. 2023, "
        "[doi:10.1038/s42256-023-00716-3](https://doi.org/10.1038/s42256-023-00716-3))",
    ),
}


def citation(teacher: str) -> str:
    """Return description and citation of a teacher, in Markdown; its name without them."""
    return (TEACHERS[teacher].citation if teacher in TEACHERS else "") or teacher


def load_teacher(name: str) -> Teacher:
    """Return a teacher by its name or its import path.

    Parameters
    ----------
    name : str
        A key of `TEACHERS`, or ``'package.module:Class'``; the class, or any other callable that
        returns a teacher or an ASE calculator, is called. Options may follow the name or path, as
        in ``'so3lr:long_range=12,dtype=float64'``; they are the keyword arguments of the call.

    Raises
    ------
    ValueError
        If there is no such teacher, it gives no forces, or an option is invalid.
    ImportError
        If a package that it needs is not installed.
    """
    path, options = _parsed(name)
    function = _imported(name, TEACHERS[path].path if path in TEACHERS else path)
    make = functools.partial(function, **options) if options else function
    try:
        teacher = make()
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"teacher '{name}' cannot be made: {one_line(error)}") from error
    if hasattr(teacher, "settings") and callable(getattr(teacher, "evaluate", None)):
        teacher.name = name
        return teacher
    if isinstance(teacher, Atoms) or not hasattr(teacher, "get_potential_energy"):
        raise ValueError(
            f"'{name}' makes neither a teacher (with 'settings' and 'evaluate') nor an ASE "
            "calculator."
        )
    settings = {"package": package_of(teacher), "calculator": path, **_code(path), **options}
    return CalculatorTeacher(name, make, settings)


def _parsed(name: str) -> tuple[str, dict[str, Any]]:
    """Return the key of `TEACHERS` or import path in a teacher's name, and its options.

    >>> _parsed("so3lr:long_range=12,dtype=float64")
    ('so3lr', {'long_range': 12, 'dtype': 'float64'})
    >>> _parsed("package.module:Class:cutoff=6.5")
    ('package.module:Class', {'cutoff': 6.5})
    """
    parts = name.split(":")
    n_path = 1 if parts[0] in TEACHERS else 2
    path, options = ":".join(parts[:n_path]), ":".join(parts[n_path:])
    if n_path == 2 and len(parts) == 1:
        raise ValueError(
            f"no teacher named '{name}'; available: {', '.join(map(repr, TEACHERS))}. "
            "To use any ASE calculator, give its path as 'package.module:Class'."
        )
    pairs = [option.partition("=") for option in options.split(",") if option]
    for key, _, value in pairs:
        if not key.isidentifier() or not value:
            raise ValueError(
                f"teacher '{name}': options are written as key=value,key=value; given '{options}'."
            )
    return path, {key: _value(text) for key, _, text in pairs}


def _value(text: str) -> Any:
    """Return the value of a Python literal, such as a number or True; other text unchanged."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _imported(name: str, path: str) -> Callable[[], Any]:
    module_name, _, attribute = path.partition(":")
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise ImportError(f"teacher '{name}': {error}.") from error
    except AttributeError:
        raise ValueError(
            f"teacher '{name}': module '{module_name}' has no '{attribute}'."
        ) from None
    if not callable(make):
        raise ValueError(f"teacher '{name}' cannot be called.")
    return make


def _code(path: str) -> dict[str, str]:
    """Return the SHA-256 of the module of an import path, since its objects may have no version."""
    file = getattr(sys.modules[path.partition(":")[0]], "__file__", None)
    if file is None or Path(file).suffix != ".py":
        return {}
    return {"module_sha256": file_sha256(Path(file))}


def package_of(calculator: Any) -> str:
    """Return name and version of the distribution that a calculator comes from."""
    root = type(calculator).__module__.split(".")[0]
    distributions = packages_distributions().get(root, [])
    try:
        return f"{distributions[0]} {version(distributions[0])}"
    except (IndexError, PackageNotFoundError):
        return root


def load_potential(name: str, *, device: str = "auto", threads: int | None = None) -> Potential:
    """Return a student or a teacher by name.

    A student runs without its guard, in the backend that is the fastest for many structures at
    once. A teacher is created once and kept until another teacher is requested.

    Parameters
    ----------
    name : str
        Name or path of a student, or name of a teacher as in :func:`load_teacher`.
    device : str
        Device of a student, see `StudentCalculator`.
    threads : int, optional
        CPU threads of a student; by default its backend's choice.

    Raises
    ------
    ValueError
        If there is no such student or teacher.
    ImportError
        If a package that it needs is not installed.
    """
    if _is_student(name):
        return StudentPotential(
            StudentCalculator(name, device=device, threads=threads, guard="off")
        )
    return _teacher(name)


def identity(name: str) -> dict[str, Any]:
    """Return what identifies a student or a teacher besides its name.

    Parameters
    ----------
    name : str
        As for :func:`load_potential`. The errors for a teacher are the same as there.
    """
    if not _is_student(name):
        return _teacher(name).settings
    return {"sha256": file_sha256(resolve_model(name))}


def _is_student(name: str) -> bool:
    return name in available_students() or Path(name).exists()


@lru_cache(maxsize=1)
def _teacher(name: str) -> Teacher:
    try:
        return load_teacher(name)
    except ValueError as error:
        students = ", ".join(f"'{student}'" for student in available_students())
        raise ValueError(
            f"nothing named '{name}' can drive dynamics: it is no student ({students} or a path), "
            f"and {error}"
        ) from error
