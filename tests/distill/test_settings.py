"""Settings of a step, declared once for Python, the command line and recipes."""

import argparse
from dataclasses import dataclass, fields

import pytest

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from ase_student.distill.active_learning.exploration import ExplorationSettings
from ase_student.distill.options import add_options
from ase_student.distill.recipes.options import command_from
from ase_student.distill.sampling.dimer_scans import DimerScanSettings
from ase_student.distill.sampling.liquid_boxes import LiquidSettings
from ase_student.distill.sampling.torsion_scans import TorsionScanSettings
from ase_student.distill.settings import StepSettings, option, options_of, settings_from
from ase_student.distill.steps import step_module

STEPS = {
    "dimers": DimerScanSettings,
    "grow": ExplorationSettings,
    "liquids": LiquidSettings,
    "torsions": TorsionScanSettings,
}


@dataclass(frozen=True)
class Example(StepSettings):
    n_frames: int = option(10, "how many", metavar="N", least=1)
    share: float = option(0.25, "part of them")
    range: tuple[float, float] = option((1.0, 2.5), "from and to", metavar="X")


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_options(parser, options_of(Example))
    return parser, settings_from(parser.parse_args(words), Example)


def test_options_are_those_of_the_dataclass():
    parser, settings = parsed()
    assert settings == Example()
    _, settings = parsed("--n-frames", "3", "--share", "1", "--range", "0", "7")
    assert settings == Example(3, 1.0, (0.0, 7.0))
    text = " ".join(parser.format_help().split())
    assert "--n-frames N how many (default: 10)" in text
    assert "--range X X from and to (default: 1 2.5)" in text


def test_a_limit_holds_in_python_and_on_the_command_line():
    for make in (lambda: Example(n_frames=0), lambda: parsed("--n-frames", "0")):
        with pytest.raises(ValueError, match=r"--n-frames is 0; it must be at least 1\."):
            make()


@pytest.mark.parametrize("step", STEPS)
def test_each_setting_is_an_option_and_a_key_of_recipes(step, tmp_path):
    options = step_module(step).OPTIONS
    parser = argparse.ArgumentParser()
    add_options(parser, options)
    required = {"output": "out.h5"}
    if step == "grow":
        required |= {"runs": ["run"], "teacher": "so3lr", "start-structures": ["run"]}
    settings_of_step = {
        field.name: list(value) if isinstance(value := field.default, tuple) else value
        for field in fields(STEPS[step])
    }
    table = {
        **required,
        **{name.replace("_", "-"): value for name, value in settings_of_step.items()},
    }
    command = command_from(table, options, tmp_path, find=lambda text: tmp_path / text)
    assert {name: command.settings[name] for name in settings_of_step} == settings_of_step
    assert settings_from(parser.parse_args(command.argv), STEPS[step]) == STEPS[step]()
