"""Run stress tests, count failures, and write the figures of docs/reliability.md.

Damaged files, commands killed at random moments, threads that share a calculator, processes forked
after its first use, odd structures, 10,000 structures in one call, and 100 ps of each student. An
interrupted run continues when the command is run again. The exit code is 1 if a figure that must be
zero is not.

    python validation/torture -o reliability.json --page docs/reliability.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

# `python validation/torture` puts this folder itself on the path; its parent is needed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ase_student import cli
from ase_student.files import check_output
from ase_student.jobs.store import only_writer
from torture import damage, interruptions, long_runs, odd_inputs, report, sharing
from torture.trials import Block, Trial, generator, merged


def all_trials(short: bool) -> list[Trial]:
    """Return every trial, the shortest first."""
    return [
        *odd_inputs.TRIALS,
        *sharing.TRIALS,
        *damage.TRIALS,
        *interruptions.TRIALS,
        *long_runs.trials(short),
    ]


def do(trial: Trial, results: dict[str, Any], path: Path, short: bool, bar: Any) -> None:
    """Run the missing blocks of a trial; results are written after each block."""
    n_blocks = trial.short_blocks if short else trial.blocks
    if not n_blocks:
        return
    entry = results["trials"].setdefault(
        trial.name, {"blocks": 0, "of": n_blocks, "figures": {}, "state": {}, "seconds": 0.0}
    )
    bar.update(entry["blocks"])
    for number in range(entry["blocks"], n_blocks):
        start = time.perf_counter()
        rng = generator(results["seed"], trial.name, number)
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            figures = trial.run(Block(number, rng, Path(folder), entry["state"]))
        entry["figures"] = merged(entry["figures"], figures)
        entry["seconds"] += time.perf_counter() - start
        entry["blocks"] = number + 1
        report.write_results(path, results)
        bar.update(1)


def run(arguments: argparse.Namespace) -> int:
    """Run the trials of a command line; return 1 if a figure that must be zero is not."""
    trials = all_trials(arguments.short)
    chosen = [trial for trial in trials if arguments.only is None or trial.name in arguments.only]
    check_output(arguments.output)
    with only_writer(arguments.output):
        header = report.header(arguments.short, arguments.seed)
        results = report.read_results(arguments.output, header)
        blocks = (item.short_blocks if arguments.short else item.blocks for item in chosen)
        total = sum(blocks)
        with tqdm(total=total, unit="block", disable=None) as bar:
            for trial in chosen:
                bar.set_description(trial.name)
                do(trial, results, arguments.output, arguments.short, bar)
    text = report.table(results, trials)
    if arguments.page is not None:
        report.write_table(arguments.page, text)
    cli.say(text)
    for failure in (failed := report.failures(results, trials)):
        cli.say(f"failed: {failure}", sys.stderr)
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    names = [trial.name for trial in all_trials(short=False)]
    parser = cli.Parser(
        prog="python validation/torture", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--page", type=Path, help="Markdown page whose table is replaced")
    parser.add_argument("--short", action="store_true", help="seconds instead of about an hour")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: 0)")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="TRIAL",
        help=f"one of: {', '.join(names)}; repeatable",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    return cli.run(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
