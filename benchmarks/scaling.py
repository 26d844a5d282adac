"""Measure the parallel efficiency of training (1 and 2 processes) and labeling (1 to 3 workers).

``python benchmarks/scaling.py --data labeled.h5`` needs cores that nothing else uses, and
``ase-student[distill,dask]``. It writes the tables of ``docs/scaling.md``. For GPUs, a model
predicts the efficiency from the size of the gradient and the time of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import fill

from ase_student import cli, load_student
from ase_student.checkpoint import available_students
from ase_student.data.hdf5 import Dataset
from ase_student.files import between_marks, replaced_when_complete
from ase_student.provenance import with_python

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"
BEGIN = "<!-- scaling: begin; written by python benchmarks/scaling.py -->"
END = "<!-- scaling: end -->"
PROCESSES, WORKERS = (1, 2), (1, 2, 3)
#: Epochs of two runs; the difference of their times does not include the start-up.
EPOCHS = (1, 3)
DISTILL = [sys.executable, "-W", "ignore", "-m", "ase_student.distill"]
#: Messages between GPUs of one machine, bytes/s and s: assumed, not measured.
BANDWIDTH, LATENCY = 100e9, 20e-6
GPUS = (1, 2, 4, 8)
STEP_SECONDS = (0.005, 0.02, 0.1)
#: Longest time in which the workers of a cluster must start, s.
PATIENCE = 120


def training_seconds(data: Path, student: str, processes: int, batch: int, folder: Path) -> float:
    """Return the time in seconds of one training step; the processes share its batch.

    Parameters
    ----------
    data : path
    student : str
    processes : int
    batch : int
        Number of structures of all processes together.
    folder : path
        Folder for temporary runs.
    """
    totals, steps = [], []
    for epochs in EPOCHS:
        run = folder / f"run-{processes}-{epochs}"
        words = [
            "train", str(data), "--student", student, "-o", str(run), "--epochs", str(epochs),
            "--batch-size", str(batch // processes), "--devices", str(processes), "--threads", "1",
            "--validate-every", "100000", "--validation-structures", "1",
        ]  # fmt: skip
        start = time.perf_counter()
        _run(words)
        totals.append(time.perf_counter() - start)
        rows = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
        steps.append(int(json.loads(rows[-1])["step"]))
        shutil.rmtree(run)
    return (totals[1] - totals[0]) / (steps[1] - steps[0])


def labeling_seconds(
    structures: Path, teacher: str, workers: int, number: int, folder: Path
) -> float:
    """Return the time per label in seconds, with workers of a Dask cluster on this machine.

    The time of a few labels, which is mostly start-up, is subtracted.
    """
    from distributed import Client, LocalCluster

    os.environ["OMP_NUM_THREADS"] = "1"
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with Client(cluster) as client:
            client.wait_for_workers(workers, timeout=PATIENCE)
        address = cluster.scheduler_address
        few = 4 * workers
        # The first call also creates the workers' teachers.
        _label(structures, teacher, address, few, folder)
        short = _label(structures, teacher, address, few, folder)
        long = _label(structures, teacher, address, few + number, folder)
    return (long - short) / number


def _label(structures: Path, teacher: str, address: str, first: int, folder: Path) -> float:
    output = folder / "labels.h5"
    start = time.perf_counter()
    _run(
        ["label", str(structures), "--teacher", teacher, "--scheduler", address, "-o", str(output),
         "--first", str(first)]
    )  # fmt: skip
    seconds = time.perf_counter() - start
    output.unlink()
    return seconds


def _run(words: list[str]) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [*DISTILL, *words], env=environ, check=False, capture_output=True, text=True
    )
    if process.returncode:
        raise ValueError(f"distill {words[0]} failed: {process.stderr.strip().splitlines()[-1]}")


def efficiency(seconds: float, n_bytes: int, gpus: int) -> float:
    """Return the predicted parallel efficiency of training over GPUs.

    Every GPU computes a batch of the same size. A step takes as long as on one GPU, plus the time
    of a ring all-reduce of the gradient: 2 (P - 1) messages, which together carry 2 (P - 1) / P
    times the gradient (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 117, 2009).

    Parameters
    ----------
    seconds : float
        Time of a step on one GPU.
    n_bytes : int
        Size of the gradient.
    gpus : int
        Number of GPUs.

    Examples
    --------
    >>> efficiency(0.02, 300_000, 1)
    1.0
    >>> 0.98 < efficiency(0.02, 300_000, 8) < 0.99
    True
    """
    messages = 2 * (gpus - 1)
    exchange = messages * LATENCY + messages / gpus * n_bytes / BANDWIDTH
    return seconds / (seconds + exchange)


def gradient_bytes(student: str) -> int:
    """Return the size of a student's gradient in float32."""
    return 4 * load_student(student).n_parameters


def model_table() -> list[str]:
    """Return a table of predicted efficiencies, which do not depend on this machine."""
    lines = [
        "| student | gradient, kB | step on one GPU, ms | "
        + " | ".join(f"{gpus} GPUs" for gpus in GPUS[1:])
        + " |",
        "|---" * (2 + len(GPUS)) + "|",
    ]
    for student in available_students():
        for seconds in STEP_SECONDS:
            shares = (efficiency(seconds, gradient_bytes(student), gpus) for gpus in GPUS[1:])
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
            lines.append(
                f"| `{student}` | {gradient_bytes(student) / 1e3:.0f} | {1e3 * seconds:g} "
                f"| {cells} |"
            )
    return lines


def measured_table(arguments: argparse.Namespace) -> list[str]:
    """Return a table of the times measured on this machine."""
    lines = ["| time, by number of processes or workers | 1 | 2 | 3 |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for student in arguments.students:
            seconds = [
                training_seconds(arguments.data, student, n, arguments.batch, folder)
                for n in PROCESSES
            ]
            cells = [
                f"{1e3 * duration:.1f} ms ({seconds[0] / duration:.2f})" for duration in seconds
            ]
            text = f"training step of `{student}`, {arguments.batch} structures in all, processes"
            lines.append(f"| {text} | {' | '.join(cells)} | |")
        for teacher in arguments.teachers:
            seconds = [
                labeling_seconds(arguments.data, teacher, n, arguments.labels, folder)
                for n in WORKERS
            ]
            cells = [
                f"{1e3 * duration:.1f} ms ({seconds[0] / duration:.2f})" for duration in seconds
            ]
            lines.append(f"| label of {teacher}, Dask workers | {' | '.join(cells)} |")
    return lines


def run(arguments: argparse.Namespace) -> None:
    """Measure and write the tables into the page."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from timing.machine import hardware

    if not arguments.data.is_file():
        raise FileNotFoundError(f"no data '{arguments.data}'.")
    text = arguments.page.read_text(encoding="utf-8")
    with Dataset(arguments.data) as dataset:
        sizes = dataset.read_structures().splits
    machine = hardware()
    versions = ", ".join(f"{name} {version}" for name, version in with_python(("torch",)).items())
    new = "\n".join(
        [
            fill(
                f"{machine['cpu']}, {machine['cores']} cores, one thread each, {versions}; "
                f"{len(sizes) - 1} structures of {(sizes[-1]) / (len(sizes) - 1):.0f} atoms on "
                "average. In brackets: speed-up over one process or worker.",
                100,
            ),
            "",
            *measured_table(arguments),
            "",
            f"Predicted parallel efficiency, for {BANDWIDTH / 1e9:g} GB/s and "
            f"{1e6 * LATENCY:g} µs per message:",
            "",
            *model_table(),
        ]
    )
    text = between_marks(text, BEGIN, END, new=new, file=str(arguments.page))
    with replaced_when_complete(arguments.page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(new)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 2 if an argument is invalid."""
    parser = cli.Parser(prog="python benchmarks/scaling.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="labeled HDF5 file")
    parser.add_argument("--students", nargs="+", default=["tiny"], choices=available_students())
    parser.add_argument("--teachers", nargs="+", default=["gfn2-xtb"])
    parser.add_argument(
        "--batch", type=int, default=16, help="structures per training step (default: 16)"
    )
    parser.add_argument(
        "--labels", type=int, default=200, help="number of timed labels (default: 200)"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    return cli.run(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
