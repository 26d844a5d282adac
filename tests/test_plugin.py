import subprocess
import sys

import pytest
from ase.calculators.calculator import external_calculators, get_calculator_class, names

from ase_student import StudentCalculator, plugin
from ase_student.plugin import register


def run(code: str) -> str:
    """Return what a new interpreter prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_ase_finds_the_class_by_name():
    assert get_calculator_class("student").__qualname__ == StudentCalculator.__qualname__
    assert names.count("student") == 1


@pytest.fixture
def registry(monkeypatch):
    """The registry of ASE, empty for the time of a test."""
    monkeypatch.setattr("ase.calculators.calculator.external_calculators", {})
    monkeypatch.setattr("ase.calculators.calculator.names", [])
    return sys.modules["ase.calculators.calculator"].external_calculators


def test_registering_twice_is_no_error(registry):
    register(StudentCalculator)
    register(StudentCalculator)
    assert registry == {"student": StudentCalculator}


def test_module_that_is_imported_again_replaces_its_class(registry):
    again = type("StudentCalculator", (), {"__module__": StudentCalculator.__module__})
    register(StudentCalculator)
    register(again)
    assert registry == {"student": again}


def test_class_of_another_package_stays(registry):
    other = type("Student", (), {"__module__": "other_package"})
    register(other)
    register(StudentCalculator)
    assert registry == {"student": other}


def test_the_registry_of_other_tests_was_not_touched():
    assert external_calculators["student"].__name__ == "StudentCalculator"


def test_importing_the_plugin_imports_little():
    heavy = "{'ase.calculators.calculator', 'onnxruntime', 'torch'}"
    assert run(f"import sys, ase_student.plugin; print({heavy} & set(sys.modules))") == "set()"


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'plugins'"):
        plugin.plugins  # noqa: B018


@pytest.mark.parametrize(
    "first", ["ase._4.plugins", "ase_student.plugin", "ase_student.calculator"]
)
def test_plugin_in_either_order_of_imports(first):
    pytest.importorskip("ase._4.plugins")
    code = (
        f"import {first}, ase_student.plugin as p; print([c().__name__ for c in p.__ase_plugins__])"
    )
    assert run(code) == "['StudentCalculator']"


@pytest.mark.usefixtures("installed")
def test_ase_lists_the_plugin():
    pytest.importorskip("ase._4.plugins")
    code = "from ase._4.plugins import plugins; print(plugins.calculators.display())"
    assert run(code).startswith("student              (ase_student.plugin ")


@pytest.mark.parametrize("how", ["missing", "different"])
def test_another_ase_has_no_plugin(monkeypatch, how):
    module = pytest.importorskip("ase._4.plugins.plugin")
    if how == "missing":
        monkeypatch.delattr(module, "CalculatorPlugin")
    else:
        monkeypatch.setattr(module, "CalculatorPlugin", lambda name: name)
    assert plugin.__ase_plugins__ == []
