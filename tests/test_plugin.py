import subprocess
import sys

import pytest
from ase.calculators.calculator import external_calculators, get_calculator_class, names

from ase_student import StudentCalculator, plugin
from ase_student.plugin import register


def run(code: str) -> str:
    """Return the output of a new interpreter."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_ase_finds_the_class_by_name():
    assert get_calculator_class("student").__qualname__ == StudentCalculator.__qualname__
    assert names.count("student") == 1


@pytest.fixture
def registry(monkeypatch):
    """Return ASE's registry of calculators, empty during a test."""
    monkeypatch.setattr("ase.calculators.calculator.external_calculators", {})
    monkeypatch.setattr("ase.calculators.calculator.names", [])
    return sys.modules["ase.calculators.calculator"].external_calculators


def test_registering_twice_is_no_error(registry):
    register(StudentCalculator)
    register(StudentCalculator)
    assert registry == {"student": StudentCalculator}


def test_a_module_imported_again_replaces_its_class(registry):
    reimported = type("StudentCalculator", (), {"__module__": StudentCalculator.__module__})
    register(StudentCalculator)
    register(reimported)
    assert registry == {"student": reimported}


def test_a_class_of_another_package_is_kept(registry):
    other_class = type("Student", (), {"__module__": "other_package"})
    register(other_class)
    register(StudentCalculator)
    assert registry == {"student": other_class}


def test_the_registry_is_restored_after_tests():
    assert external_calculators["student"].__name__ == "StudentCalculator"


def test_importing_the_plugin_imports_no_heavy_packages():
    heavy = "{'ase.calculators.calculator', 'onnxruntime', 'torch'}"
    assert run(f"import sys, ase_student.plugin; print({heavy} & set(sys.modules))") == "set()"


def test_an_unknown_attribute_is_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'plugins'"):
        plugin.plugins  # noqa: B018


@pytest.mark.parametrize(
    "first", ["ase._4.plugins", "ase_student.plugin", "ase_student.calculator"]
)
def test_the_plugin_works_in_any_order_of_imports(first):
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


@pytest.mark.parametrize("change", ["missing", "different"])
def test_other_versions_of_ase_have_no_plugin(monkeypatch, change):
    module = pytest.importorskip("ase._4.plugins.plugin")
    if change == "missing":
        monkeypatch.delattr(module, "CalculatorPlugin")
    else:
        monkeypatch.setattr(module, "CalculatorPlugin", lambda name: name)
    assert plugin.__ase_plugins__ == []
