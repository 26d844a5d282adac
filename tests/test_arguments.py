"""Calls are readable: public functions take at most three positional arguments."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ase_student"
MOST_BY_PLACE = 3
#: Arrays that describe one structure, in an order that is the same everywhere. They count as one.
STRUCTURE = {"numbers", "positions", "cell", "cells", "pbc", "neighbors", "offsets", "forces"}
#: Packages and modules whose functions follow an order given elsewhere, with the reason.
EXCEPTIONS = {
    "backends": "an opened file or student, name, device, dtype, threads: one order in all of them",
    "engine": "the order of the engine's functions in C",
    "networks": "the order of the equations",
    "whole_steps": "the arguments of a step of ASE",
    "extrapolation.guard": "a guard is made in one place, `open_guard`",
}


def public_functions(node, path, inside=""):
    """Yield name and arguments of the public functions and methods of a module or class."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, path, child.name)
        elif isinstance(child, ast.FunctionDef):
            if child.name.startswith("_") and child.name != "__init__":
                continue
            decorators = {getattr(name, "id", None) for name in child.decorator_list}
            arguments = [argument.arg for argument in child.args.posonlyargs + child.args.args]
            if inside and "staticmethod" not in decorators:
                arguments = arguments[1:]
            yield ".".join(filter(None, (path, inside, child.name))), arguments


def count(arguments):
    """Return the number of arguments; the arrays of a structure count as one."""
    other_arguments = [name for name in arguments if name not in STRUCTURE]
    return len(other_arguments) + (len(other_arguments) < len(arguments))


def offenders(text, path):
    return [
        f"{name}({', '.join(arguments)})"
        for name, arguments in public_functions(ast.parse(text), path)
        if count(arguments) > MOST_BY_PLACE
    ]


def test_at_most_three_arguments_are_positional():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not any(f"{name}.".startswith(f"{exception}.") for exception in EXCEPTIONS):
            wrong += offenders(path.read_text(encoding="utf-8"), name)
    assert wrong == [], "put '*' before the fourth argument"


def test_the_check_finds_functions_with_more_positional_arguments():
    text = """
def fine(a, b, c, *, d): ...
def structure(numbers, positions, cell, pbc, a, b): ...
def _private(a, b, c, d): ...
def many(a, b, c, d=0): ...
class Thing:
    def __init__(self, a, b, c, d): ...
    def method(self, a, b, c): ...
    @staticmethod
    def static(a, b, c, d): ...
"""
    assert offenders(text, "m") == [
        "m.many(a, b, c, d)",
        "m.Thing.__init__(a, b, c, d)",
        "m.Thing.static(a, b, c, d)",
    ]


def test_every_exception_is_needed():
    for name in EXCEPTIONS:
        place = name.replace(".", "/")
        paths = [*PACKAGE.glob(f"{place}.py"), *PACKAGE.glob(f"{place}/**/*.py")]
        assert any(offenders(path.read_text(encoding="utf-8"), name) for path in paths), name
