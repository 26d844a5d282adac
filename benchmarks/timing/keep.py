"""Condense result files of pytest-benchmark for committing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ase_student.files import replaced_when_complete
from timing.results import condensed, median_of, read_results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="file of pytest benchmarks --benchmark-json; with several files, each case is taken "
        "from the run in which it has the median time",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="JSON file; put the hardware in its name"
    )


def run(arguments: argparse.Namespace) -> str:
    """Write the condensed file and return a summary."""
    results = median_of([read_results(path) for path in arguments.results])
    text = json.dumps(condensed(results), indent=1, ensure_ascii=False)
    with replaced_when_complete(arguments.output) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return f"wrote '{arguments.output}', {len(results.rows)} results"
