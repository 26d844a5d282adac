"""The command ``ase-student``, and the handling of errors in all commands.

Each subcommand is the ``main`` of a module that ``python -m`` runs as well; the module is imported
when the subcommand is run.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import runpy
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TextIO

#: Module and description of each subcommand.
COMMANDS = {
    "demo": ("ase_student.demo", "run and plot molecular dynamics of aspirin"),
    "export": ("ase_student.export.__main__", "write ONNX and TorchScript files, or verify one"),
    "validate": ("ase_student.validation.__main__", "measure errors and physics of students"),
    "stability": ("ase_student.validation.stability.__main__", "test whether dynamics is stable"),
    "distill": ("ase_student.distill.__main__", "make a student from a teacher"),
    "release": ("ase_student.release.__main__", "publish a trained student, with all its checks"),
    "doctor": ("ase_student.doctor", "report what is installed and whether it works"),
}
BENCHMARK = ("benchmark", "time students; only in a checkout of the repository")
#: Exit codes: of a user's mistake, and after Ctrl-C (128 + 2, the number of SIGINT, as in shells).
MISTAKE, INTERRUPTED = 2, 130
#: Characters that a terminal interprets: control characters except tab and newline, and characters
#: that change the direction of text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return a text with its control characters escaped, as in a Python string.

    Examples
    --------
    >>> printable("a\x1b[31mred")
    'a\\x1b[31mred'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a text without control characters, because it may contain names from files.

    This package prints all its output with this function.
    """
    print(printable(text), file=file, flush=True)


def run(
    command: Callable[[], int | None],
    *,
    interrupted: str = "interrupted: run the same command again.",
) -> int:
    """Run a command and return its exit code; print a user's mistake as one line.

    Parameters
    ----------
    command : callable
        Returns its exit code, or None for 0.
    interrupted : str
        Text that is printed after Ctrl-C.

    Returns
    -------
    int
        2 after ValueError, OSError, ImportError or ASE's InputError, 130 after Ctrl-C. Other errors
        are faults of this package and are raised with their traceback.
    """
    try:
        with _warnings_as_lines():
            return command() or 0
    except KeyboardInterrupt:
        say(interrupted, sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not isinstance(error, _mistakes()):
            raise
        say(f"error: {error}", sys.stderr)
        return MISTAKE


def _mistakes() -> tuple[type[Exception], ...]:
    """Return the exceptions that report a user's mistake; ASE's only if ASE is imported."""
    module = sys.modules.get("ase.calculators.calculator")
    mistakes = (ValueError, OSError, ImportError)
    return mistakes if module is None else (*mistakes, module.InputError)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show warnings of this package as one line each, without the place in the code."""

    def line_of(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if issubclass(category, UserWarning):
            return f"warning: {printable(str(message))}\n"
        return original(message, category, filename, lineno, line)

    original = warnings.formatwarning
    warnings.formatwarning = line_of
    try:
        yield
    finally:
        warnings.formatwarning = original


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr and exit code 2.

    The error for a misspelled option or choice suggests a similar valid one. Subparsers are of the
    same class.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; unlike argparse, exit if an argument is unknown.

        The parser that finds the unknown argument, which may be that of a subcommand, knows the
        options to suggest.
        """
        result, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            hint = suggestion(option, self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}")
        return result, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = suggestion(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, f"{error.message}.{hint}") from None

    def error(self, message: str) -> NoReturn:
        """Print the error and how to list the options, in one line, and exit with 2."""
        text = f"error: {sentence(message)} '{self.prog} --help' lists the options.\n"
        self.exit(MISTAKE, printable(text))


def sentence(message: str) -> str:
    """Return a message that ends with a full stop or a question mark."""
    return message if message.endswith((".", "?")) else f"{message}."


def suggestion(name: str, known_names: Iterable[str]) -> str:
    """Return a question that suggests a known name similar to a misspelled name, or nothing.

    >>> suggestion("tinny", ["tiny", "ultra-tiny", "original"])
    " Did you mean 'tiny'?"
    >>> suggestion("water", ["tiny"])
    ''
    """
    matches = get_close_matches(name, list(known_names), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 if there is no subcommand of that name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_help())
        return 0 if arguments else MISTAKE
    name, options = arguments[0], arguments[1:]
    if name == BENCHMARK[0]:
        return run(lambda: _benchmark(options))
    if name not in COMMANDS:
        names = [*COMMANDS, BENCHMARK[0]]
        say(
            f"error: no command '{name}'; available: {', '.join(names)}.{suggestion(name, names)}",
            sys.stderr,
        )
        return MISTAKE
    # Importing takes a second, during which Ctrl-C may be pressed.
    return run(
        lambda: int(import_module(COMMANDS[name][0]).main(options)), interrupted="interrupted."
    )


def _help() -> str:
    rows = [*((name, text) for name, (_, text) in COMMANDS.items()), BENCHMARK]
    lines = [f"  {name:10s} {text}" for name, text in rows]
    return "\n".join(
        [
            "usage: ase-student COMMAND ...",
            "",
            *lines,
            "",
            "'ase-student COMMAND --help' lists the options of a command.",
        ]
    )


def _benchmark(arguments: list[str]) -> int:
    """Run ``python benchmarks`` in the checkout from which this package is imported."""
    folder = Path(__file__).parents[1] / "benchmarks"
    if not (folder / "__main__.py").is_file():
        raise FileNotFoundError(
            "timings belong to the repository, not to the installed package: run this in a "
            "checkout that was installed with pip install -e."
        )
    argv_before = sys.argv
    sys.argv = [str(folder), *arguments]
    try:
        runpy.run_path(str(folder), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = argv_before
    return 0
