"""Register the calculator with ASE under the name 'student'.

ASE finds ``__ase_plugins__`` through the entry point group ``ase.plugins``, which is experimental
(ASE 3.29). ASE's plugin package is imported only when ASE reads the attribute: importing it loads
the plugins of all installed packages, and would load this module before it is complete.
"""

from typing import Any

NAME = "student"


def __getattr__(name: str) -> Any:
    if name != "__ase_plugins__":
        raise AttributeError(f"module 'ase_student.plugin' has no attribute '{name}'")
    return _plugins()


def _plugins() -> list[Any]:
    """Return the calculator as a plugin, or nothing if this version of ASE has other plugins."""
    try:
        from ase._4.plugins.plugin import CalculatorPlugin

        plugin = CalculatorPlugin(
            NAME,
            citation="K. T. Schütt, O. T. Unke, M. Gastegger, ICML 2021, arXiv:2102.03150",
            implementation="ase_student.calculator.StudentCalculator",
        )
    except (ImportError, TypeError):
        # An error here would break ASE's list of the plugins of all packages.
        return []
    return [plugin]


def register(calculator: type) -> None:
    """Let ``ase.calculators.calculator.get_calculator_class('student')`` return a class.

    A class that another package has registered under the name is not replaced. If this package's
    module is imported a second time, its new class replaces the first.

    Parameters
    ----------
    calculator : type
    """
    from ase.calculators.calculator import external_calculators, register_calculator_class

    registered = external_calculators.get(NAME)
    if registered is None:
        register_calculator_class(NAME, calculator)
    elif registered.__module__ == calculator.__module__:
        external_calculators[NAME] = calculator
