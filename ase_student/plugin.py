"""Make the calculator known to ASE, under the name 'student'.

ASE finds ``__ase_plugins__`` through the entry point group ``ase.plugins``, which is experimental
(ASE 3.29). Nothing of it is imported before ASE asks for the attribute: importing ASE's plugin
package loads the plugins of all installed packages, and this module while it is half made.
"""

from typing import Any

NAME = "student"


def __getattr__(name: str) -> Any:
    if name != "__ase_plugins__":
        raise AttributeError(f"module 'ase_student.plugin' has no attribute '{name}'")
    return _plugins()


def _plugins() -> list[Any]:
    """Return the calculator as a plugin, or nothing if this ASE has other ideas of plugins."""
    try:
        from ase._4.plugins.plugin import CalculatorPlugin

        plugin = CalculatorPlugin(
            NAME,
            citation="K. T. Schütt, O. T. Unke, M. Gastegger, ICML 2021, arXiv:2102.03150",
            implementation="ase_student.calculator.StudentCalculator",
        )
    except (ImportError, TypeError):
        # An error here would break ASE's list of everybody's plugins.
        return []
    return [plugin]


def register(calculator: type) -> None:
    """Let ``ase.calculators.calculator.get_calculator_class('student')`` return a class.

    A class that another package has registered under the name stays. The class of a module that
    is imported a second time replaces the first.

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
