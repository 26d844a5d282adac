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
    """Run the command; return 2 if the input is invalid, 1 if a file fails its check."""
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
        epilog=f"{_USAGE} verify FILE repeats the check of an exported file.",
    )
    parser.add_argument("model", help="name of a bundled student, or path of a checkpoint")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    compression = parser.add_argument_group(
        "compression", "writes one ONNX file and compares it with the same student in float32"
    )
    compression.add_argument(
        "--quantize", choices=SCHEMES, metavar="SCHEME",
        help=f"{', '.join(SCHEMES)}; int8 keeps the better of its two kinds",
    )  # fmt: skip
    compression.add_argument(
        "--accept", action="store_true", help="write the file even if it crosses documented limits"
    )
    compression.add_argument(
        "--threads", type=int, help="CPU threads of the measurements (default: 1)"
    )
    compression.add_argument(
        "--picoseconds", type=float, help="of dynamics for the drift of the energy (default: 2)"
    )
    arguments = parser.parse_args(argv)
    if arguments.quantize is not None:
        return _compress(arguments)
    for name in ("accept", "threads", "picoseconds"):
        if getattr(arguments, name):
            raise ValueError(f"--{name} belongs to --quantize: give --quantize too.")
    summary = export_student(
        arguments.model, arguments.output, arguments.formats, dtype=arguments.dtype
    )
    for name, entry in summary["files"].items():
        cli.say(
            f"{arguments.output / name}: {entry['bytes'] / 1e3:.0f} kB, "
            f"{_described(entry['energy_per_atom'], entry['forces'])}"
        )
    return 0


def _compress(arguments: argparse.Namespace) -> int:
    """Write a compressed file; return 1 if it crosses limits without --accept."""
    check_installed(("onnx",))
    from ase_student.compression.writing import PICOSECONDS, LimitError, described, write_compressed

    if arguments.dtype != "float32" or arguments.formats != list(FORMATS):
        raise ValueError("--quantize writes ONNX files that compute in float32: leave --dtype and "
                         "--formats out.")  # fmt: skip
    threads = 1 if arguments.threads is None else arguments.threads
    picoseconds = PICOSECONDS if arguments.picoseconds is None else arguments.picoseconds
    try:
        path, result = write_compressed(
            arguments.model,
            arguments.output,
            arguments.quantize,
            accept=arguments.accept,
            threads=threads,
            picoseconds=picoseconds,
        )
    except LimitError as error:
        cli.say(f"{error.table}\nnot written: {error}", file=sys.stderr)
        return 1
    cli.say(f"{described(result)}\nwrote {path}")
    return 0


def _verify(argv: list[str]) -> int:
    parser = cli.Parser(prog=f"{_USAGE} verify", description=verify_file.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--trust", action="store_true", help="run it even if it is a program from an unknown source"
    )
    arguments = parser.parse_args(argv)
    path: Path = arguments.file
    report = verify_file(path, trust=arguments.trust)
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
