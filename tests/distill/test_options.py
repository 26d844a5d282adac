"""Options of the steps: rules for declarations, limits, and options that moved."""

import argparse
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("h5py")
pytest.importorskip("rdkit")

from ase_student.cli import Parser
from ase_student.distill.options import (
    Option,
    add_options,
    check_limits,
    grouped,
    moved,
    output_file,
    positional,
)
from ase_student.distill.steps import STEPS, step_module

OPTIONS = (
    positional("files", "to read", nargs="+"),
    output_file("to write"),
    Option("n-frames", "how many", int, default=3, least=1),
    Option("charge", "of all", int, default=0, least=0),
    *grouped("sizes", Option("repeat", "along axes", int, nargs=3, default=(1, 1, 1), least=1)),
    Option("fast", "but not exact", bool, default=False),
    *moved("bend", "angle"),
)


def parsed(*words):
    parser = Parser(prog="test")
    add_options(parser, OPTIONS)
    arguments = parser.parse_args(["a", "b", "-o", "c", *words])
    check_limits(arguments, OPTIONS)
    return arguments


@pytest.mark.parametrize("step", STEPS)
def test_every_step_declares_one_output_and_each_name_once(step):
    options = step_module(step).OPTIONS
    assert sum(option.is_output for option in options) == 1
    for names in (
        [option.name for option in options],
        [option.dest for option in options if option.kind != "moved"],
    ):
        assert [name for name, count in Counter(names).items() if count > 1] == []
    assert all(option.help for option in options)
    steps = {option.help for option in options if option.kind == "moved"}
    assert steps <= set(STEPS) - {step}


def test_a_declaration_becomes_a_command_line():
    arguments = vars(parsed("--repeat", "2", "1", "1", "--fast"))
    assert arguments == {
        "files": [Path("a"), Path("b")],
        "output": Path("c"),
        "n_frames": 3,
        "charge": 0,
        "repeat": [2, 1, 1],
        "fast": True,
    }
    parser = argparse.ArgumentParser()
    add_options(parser, OPTIONS)
    text = " ".join(parser.format_help().split())
    assert "how many (default: 3)" in text
    assert "of all (default: 0)" in text
    assert "sizes: --repeat REPEAT REPEAT REPEAT along axes (default: 1 1 1)" in text
    assert "but not exact" in text
    assert "but not exact (default" not in text
    assert "angle" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n-frames=0"], r"--n-frames is 0; it must be at least 1\."),
        (["--charge=-1"], r"--charge is -1; it must not be negative\."),
        (["--repeat", "2", "0", "-1"], r"--repeat is -1; it must be at least 1\."),
    ],
)
def test_values_below_the_limit_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parsed(*words)


def test_not_a_number_is_below_every_limit():
    share = Option("share", "part of them", float, least=0)
    assert share.broken_limit(float("nan")) == "nan; it must not be negative"
    assert share.broken_limit(None) is None


@pytest.mark.parametrize("words", [["--angle"], ["--angle", "1", "2"], ["--angle=1"]])
def test_an_option_that_moved_names_its_step(capsys, words):
    with pytest.raises(SystemExit, match="2"):
        parsed(*words)
    assert "error: --angle has moved to the step 'bend'." in capsys.readouterr().err


# The settings of a training check themselves: tests/distill/training/test_settings.py.
@pytest.mark.parametrize("name", sorted(set(STEPS) - {"train"}))
def test_no_seed_may_be_negative(name):
    for option in step_module(name).OPTIONS:
        if option.name.endswith("seed"):
            assert option.broken_limit(-1) == "-1; it must not be negative"
