"""Export a student to ONNX and TorchScript, or verify an exported file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ase_student import cli
from ase_student.compression import SCHEMES
from ase_student.export import (
    FORMATS,
    VerificationError,
    check_installed,
    export_student,
    verify_file,
)

_USAGE = "python -m ase_student.export"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 2 if what was given is wrong, 1 if a file fails its check."""
    words = list(sys.argv[1:] if argv is None else argv)
    return cli.run(lambda: _run(words), interrupted="interrupted.")


def _run(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["verify"]:
            return _verify(arguments[1:])
        return _export(arguments)
    except VerificationError as error:
        cli.say(f"wrong: {error}", sys.stderr)
        return 1


def _export(argv: list[str]) -> int:
    parser = cli.Parser(
        prog=_USAGE,
        description=__doc__,
        epilog=f"{_USAGE} verify FILE replays the check that an exported file carries.",
    )
    parser.add_argument("model", help="name of a bundled student, or path of a checkpoint")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    smaller = parser.add_argument_group(
        "compression", "writes one ONNX file and measures it beside the same student in float32"
    )
    smaller.add_argument(
        "--quantize", choices=SCHEMES, metavar="SCHEME",
        help=f"{', '.join(SCHEMES)}; int8 keeps the better of its two kinds",
    )  # fmt: skip
    smaller.add_argument(
        "--accept", action="store_true", help="write the file although it crosses documented limits"
    )
    smaller.add_argument("--threads", type=int, help="of what is measured (default: 1)")
    smaller.add_argument(
        "--picoseconds", type=float, help="of dynamics for the drift of the energy (default: 2)"
    )
    given = parser.parse_args(argv)
    if given.quantize is not None:
        return _compress(given)
    for name in ("accept", "threads", "picoseconds"):
        if getattr(given, name):
            raise ValueError(f"--{name} belongs to --quantize: give that too.")
    summary = export_student(given.model, given.output, given.formats, dtype=given.dtype)
    for name, entry in summary["files"].items():
        cli.say(
            f"{given.output / name}: {entry['bytes'] / 1e3:.0f} kB, "
            f"{_described(entry['energy_per_atom'], entry['forces'])}"
        )
    return 0


def _compress(given: argparse.Namespace) -> int:
    """Write a compressed file; return 1 if it crosses limits that were not accepted."""
    check_installed(("onnx",))
    from ase_student.compression.writing import PICOSECONDS, LimitError, described, write_compressed

    if given.dtype != "float32" or given.formats != list(FORMATS):
        raise ValueError("--quantize writes ONNX files that compute in float32: leave --dtype and "
                         "--formats out.")  # fmt: skip
    threads = 1 if given.threads is None else given.threads
    picoseconds = PICOSECONDS if given.picoseconds is None else given.picoseconds
    try:
        path, found = write_compressed(
            given.model,
            given.output,
            given.quantize,
            accept=given.accept,
            threads=threads,
            picoseconds=picoseconds,
        )
    except LimitError as error:
        cli.say(f"{error.table}\nnot written: {error}", file=sys.stderr)
        return 1
    cli.say(f"{described(found)}\nwrote {path}")
    return 0


def _verify(argv: list[str]) -> int:
    parser = cli.Parser(prog=f"{_USAGE} verify", description=verify_file.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--trust", action="store_true", help="run it even if it is a program of somebody else"
    )
    given = parser.parse_args(argv)
    path: Path = given.file
    report = verify_file(path, trust=given.trust)
    report.raise_if_wrong()
    cli.say(
        f"{path}: right on {report.n_structures} structures, "
        f"{_described(report.energy_per_atom, report.forces)}"
    )
    return 0


def _described(energy: float, forces: float) -> str:
    return f"within {energy:.1e} eV/atom and {forces:.1e} eV/Å of the float64 reference"


if __name__ == "__main__":
    sys.exit(main())
