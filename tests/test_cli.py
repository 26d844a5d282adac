"""The command ase-student, and the errors of commands."""

import ast
import warnings
from pathlib import Path

import pytest

from ase_student import cli, doctor


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize("error", [ValueError, OSError, ImportError])
def test_a_mistake_is_one_line_and_exit_code_2(error, capsys):
    assert cli.run(raising(error("it is bad."))) == 2
    assert capsys.readouterr().err == "error: it is bad.\n"


def test_an_unexpected_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(raising(ZeroDivisionError()))


def test_an_interrupt_says_how_to_continue(capsys):
    assert cli.run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted: run the same command again.\n"


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (1, 1)])
def test_exit_codes_are_returned(code, expected):
    assert cli.run(lambda: code) == expected


def test_control_characters_are_escaped(capsys):
    assert cli.run(raising(ValueError("a\x1b[31m\x07\r\u202eb, Å\tc…\n"))) == 2
    assert capsys.readouterr().err == "error: a\\x1b[31m\\x07\\r\\u202eb, Å\tc…\n\n"
    cli.say("x\x9b2J")
    assert capsys.readouterr().out == "x\\x9b2J\n"
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo", "--\x1b[31m"])
    assert "\x1b" not in capsys.readouterr().err


def test_print_is_called_in_one_module_only():
    package = Path(cli.__file__).parent
    printing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
    }
    assert printing == {"cli.py"}


def test_warnings_of_commands_are_printed_as_one_line():
    formatwarning_before = warnings.formatwarning
    shown = []

    def command():
        for message in (UserWarning("careful\x1b[0m."), DeprecationWarning("old.")):
            shown.append(warnings.formatwarning(message, type(message), "code.py", 3))

    assert cli.run(command) == 0
    assert shown[0] == "warning: careful\\x1b[0m.\n"
    assert shown[1].startswith("code.py:3: DeprecationWarning: old.")
    assert warnings.formatwarning is formatwarning_before


def test_an_interrupt_while_a_command_is_imported(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupted)
    assert cli.main(["export", "tiny", "-o", "x"]) == 130
    assert capsys.readouterr().err == "interrupted.\n"


def test_an_unknown_command_is_named_with_the_nearest_command(capsys):
    assert cli.main(["validat", "mine.xyz"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no command 'validat'; available: demo, ")
    assert message.endswith(" Did you mean 'validate'?\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["demo", "--modle", "tiny"],
            "unrecognized arguments: --modle tiny. Did you mean '--model'? "
            "'python -m ase_student.demo --help' lists the options.",
        ),
        (["demo", "--sed=3"], "unrecognized arguments: --sed=3. Did you mean '--seed'? "),
        (["demo", "--xyzzy"], "unrecognized arguments: --xyzzy. 'python -m"),
        (["demo", "--seed", "few"], "argument --seed: invalid int value: 'few'. 'python -m"),
        (["export", "tiny"], "the following arguments are required: -o/--output. 'python -m"),
        (["export", "tiny", "-o", "x", "--dtype", "float23"], "Did you mean 'float32'?"),
        (["distill", "trian"], "Did you mean 'train'?"),
        (
            ["distill", "label", "a", "-o=b", "--teacher=c", "--maxforce=3"],
            "unrecognized arguments: --maxforce=3. Did you mean '--max-force'? ",
        ),
        (["validate", "a.h5", "-o=b", "--modle=c"], "Did you mean '--model'?"),
        (["stability", "-o=a", "--watter=1"], "Did you mean '--water'?"),
        (["doctor", "--thread", "x"], "argument --threads: invalid int value: 'x'."),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(command, message, capsys):
    pytest.importorskip("h5py")
    with pytest.raises(SystemExit, match="2"):
        cli.main(command)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (*cli.COMMANDS, "benchmark"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_module_with_main(name):
    module = pytest.importorskip(cli.COMMANDS[name][0])
    assert callable(module.main)


def test_doctor_reports_students_that_work(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 0.01)
    monkeypatch.setattr(doctor, "BACKENDS", ("onnx",))
    assert cli.main(["doctor", "--device", "cpu", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    for name in ("original", "tiny", "ultra-tiny"):
        assert f"  {name:12s} runs in " in text
    assert "energies and forces per second" in text


def test_doctor_names_a_student_that_does_not_work(capsys, monkeypatch):
    def broken(name, **options):
        raise ValueError(f"{name} is damaged.\nand more")

    monkeypatch.setattr(doctor, "StudentCalculator", broken)
    assert cli.main(["doctor"]) == 1
    assert "  tiny         does not run: tiny is damaged.\n" in capsys.readouterr().out
