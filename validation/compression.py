"""Compare methods to make a student smaller or faster: errors against time and size.

``python validation/compression.py --student tiny`` compares every method with the student in
float32, on labeled structures that training did not see, writes the results to
``validation/results/compression-tiny.json`` and writes the table of ``docs/compression.md`` and its
plot. With ``--train FILE …`` the pruned student is trained further for a short time. An interrupted
command continues when it is run again. It needs ``ase-student[torch,data,train,validation]``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import numpy as np

from ase_student import StudentCalculator, cli, load_student, save_student
from ase_student.checkpoint import available_students
from ase_student.compression import KINDS, ROUNDINGS
from ase_student.data.readers.base import Frame
from ase_student.data.readers.opening import open_frames
from ase_student.files import between_marks, replaced_when_complete
from ase_student.potentials.base import Potential, StudentPotential
from ase_student.provenance import with_python
from ase_student.student import Student
from ase_student.validation.speed import timed

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "validation" / "results"
PAGE, PLOT = ROOT / "docs" / "compression.md", ROOT / "docs" / "compression.png"
BEGIN = "<!-- compression: begin; written by python validation/compression.py -->"
END = "<!-- compression: end -->"
DATA = ROOT / "validation" / "reference" / "teacher-md-so3lr.h5"
RANKS = (0.5, 0.25)
UNITS = (0.75, 0.5)
N_ROUNDS = 3
TRAINING = ("--epochs", "1", "--learning-rate", "0.001", "--gradient", "compiled")
Row = dict[str, Any]


class Study:
    """The methods, measured one after the other and compared with the same student in float32.

    Parameters
    ----------
    arguments : argparse.Namespace
    folder : path
        Folder for temporary files.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        from ase_student.compression.writing import prepared

        self.arguments, self.folder = arguments, folder
        self.student = load_student(arguments.student)
        self.comparison = prepared(
            arguments.student, folder, arguments.threads, picoseconds=arguments.picoseconds
        )
        frames = open_frames(arguments.data)
        indices = np.arange(len(frames.sizes))
        if arguments.limit:
            indices = np.sort(np.random.default_rng(0).permutation(indices)[: arguments.limit])
        read = frames.read(indices.tolist())
        self.frames = [frame for frame in read if isinstance(frame, Frame)]

    def ways(self) -> dict[str, Callable[[], Row]]:
        """Return functions that measure each method, by the name in the table."""
        rows: dict[str, Callable[[], Row]] = {"float32": self.plain}
        rows |= {scheme: self._file(scheme) for scheme in (*ROUNDINGS, *KINDS)}
        rows |= {f"rank × {share:g}": self._low_rank(share) for share in RANKS}
        rows |= {f"hidden units × {share:g}": self._pruned(share) for share in UNITS}
        if self.arguments.train:
            rows[f"hidden units × {UNITS[-1]:g}, trained on"] = self.trained
        students = available_students()
        for name in students[students.index(self.arguments.student) + 1 :]:
            rows[f"the student {name}"] = self._other(name)
        rows["tables of filters (native engine)"] = self.engine
        return rows

    def plain(self) -> Row:
        """Return the row of the student in float32."""
        cost = self.comparison.plain_cost.as_dict()
        potential = self.comparison.plain_potential
        return {**self._measured(potential, len(self.comparison.plain)), **cost, "crossed": []}

    def _file(self, scheme: str) -> Callable[[], Row]:
        def measure() -> Row:
            from ase_student.compression.writing import compressed, opened

            result = compressed(self.comparison, scheme, self.folder)
            path = self.folder / f"{self.student.sha256[:8]}-{scheme}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                potential = opened(result.content, path, self.arguments.threads)
            row = self._measured(potential, len(result.content))
            return {**row, **result.document["measured"], "crossed": result.crossed}

        return measure

    def _low_rank(self, share: float) -> Callable[[], Row]:
        def measure() -> Row:
            from ase_student.compression.shrinking import factorize, low_rank

            return self._student(low_rank(self.student, share), factorize)

        return measure

    def _pruned(self, share: float) -> Callable[[], Row]:
        def measure() -> Row:
            from ase_student.compression.shrinking import pruned

            hidden = max(1, round(share * self.student.architecture.hidden))
            return self._student(pruned(self.student, hidden))

        return measure

    def trained(self) -> Row:
        """Return the row of a pruned student that is trained further for an epoch."""
        from ase_student.compression.shrinking import pruned
        from ase_student.distill.__main__ import main

        hidden = max(1, round(UNITS[-1] * self.student.architecture.hidden))
        smaller = pruned(self.student, hidden)
        start, run = self.folder / "pruned.safetensors", self.folder / "trained"
        save_student(smaller, start)
        # Training builds the network from the name of a shape and the settings that differ from it.
        shape = dataclasses.asdict(smaller.architecture)
        lines = [f"{key} = {value}" for key, value in shape.items() if key != "elements"]
        settings = self.folder / "settings.toml"
        settings.write_text("\n".join(["[architecture]", *lines]) + "\n", encoding="utf-8")
        words = [*map(str, self.arguments.train), "--start", str(start), "-o", str(run)]
        words += ["--settings", str(settings)]
        if main(["train", *words, *TRAINING, "--threads", str(self.arguments.threads)]):
            raise ValueError("the pruned student could not be trained.")
        return self._student(load_student(run / "weights.safetensors"))

    def _other(self, name: str) -> Callable[[], Row]:
        return lambda: self._student(load_student(name))

    def _student(self, student: Student, change: Callable[[Any], Any] | None = None) -> Row:
        """Return the row of another student, in ONNX Runtime, compared with the first one."""
        from ase_student.backends.onnx_export import to_onnx
        from ase_student.backends.onnx_safety import seal
        from ase_student.compression.writing import opened, unsealed
        from ase_student.export.references import reference_results, reference_structures

        references = reference_results(student, reference_structures(student.elements))
        content = to_onnx(student, self.comparison.name, "float32", {"references": references})
        if change is not None:
            model = unsealed(content)
            change(model)
            content = seal(model.SerializeToString())
        path = self.folder / f"{student.sha256[:8]}.onnx"
        potential = opened(content, path, self.arguments.threads)
        row = self._measured(potential, len(content))
        cost = self.comparison.cost_of(potential)
        return {**row, **cost.as_dict(), "crossed": [], "n_parameters": student.n_parameters}

    def engine(self) -> Row:
        """Return the row of the C++ engine, which reads filters from tables."""

        path = self.folder / "engine" / "weights.safetensors"
        save_student(self.student, path)
        calculator = StudentCalculator(
            path, backend="native", threads=self.arguments.threads, guard="off", skin=0.0
        )
        potential = StudentPotential(calculator)
        row = self._measured(potential, path.stat().st_size)
        cost = self.comparison.cost_of(potential)
        return {**row, **cost.as_dict(), "crossed": []}

    def _measured(self, potential: Potential, size: int) -> Row:
        """Return errors against the teacher, size, and time, measured alternately with float32."""
        atoms = [frame.atoms for frame in self.frames]
        answers = potential.evaluate(atoms)
        differences = [
            answer.forces - frame.forces
            for answer, frame in zip(answers, self.frames, strict=True)
            if hasattr(answer, "forces") and frame.forces is not None
        ]
        sample = list(self.comparison.structures.values())
        potentials = {"float32": self.comparison.plain_potential, "this": potential}
        rounds = [timed(potentials, sample) for _ in range(N_ROUNDS)]
        lowest = {
            name: min(timing[name]["lowest"] for timing in rounds) for name in ("float32", "this")
        }
        joined = np.concatenate(differences)
        return {
            "teacher_force_rmse": float(np.sqrt(np.mean(joined**2))),
            "n_answered": len(differences),
            "bytes": size,
            "microseconds_per_atom": lowest["this"],
            "relative_time": lowest["this"] / lowest["float32"],
        }


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all methods and return the document; stored rows are not measured again."""
    path = arguments.output
    document: dict[str, Any] = {}
    about = {
        "student": arguments.student,
        "weights_sha256": load_student(arguments.student).sha256,
        "data": arguments.data.name,
        "limit": arguments.limit,
        "threads": arguments.threads,
        "picoseconds": arguments.picoseconds,
        "machine": _machine(),
        "versions": with_python(("onnxruntime", "onnx", "numpy", "ase")),
    }
    if path.is_file():
        document = json.loads(path.read_text(encoding="utf-8"))
        if {key: document.get(key) for key in about} != json.loads(json.dumps(about)):
            document = {}
    document = {**about, "rows": document.get("rows", {})}
    with TemporaryDirectory() as folder:
        measured_study = Study(arguments, Path(folder))
        for name, measure in measured_study.ways().items():
            if name in document["rows"]:
                continue
            print(f"{name} …", file=sys.stderr, flush=True)
            document["rows"][name] = measure()
            with replaced_when_complete(path) as temporary:
                text = json.dumps(document, indent=1, ensure_ascii=False)
                temporary.write_text(f"{text}\n", encoding="utf-8")
    return document


def _machine() -> str:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from timing.machine import hardware

    sys.path.pop(0)
    return f"{hardware()['cpu'] or platform.machine()}"


def table(document: dict[str, Any]) -> str:
    """Return the table of the page, in Markdown."""
    versions = document["versions"]
    conditions = (
        f"`{document['student']}` on {document['data']}, {document['machine']}, "
        f"{document['threads']} thread(s), onnxruntime {versions.get('onnxruntime')}, dynamics of "
        f"{document['picoseconds']:g} ps."
    )
    lines = [
        fill(conditions, 100),
        "",
        "| | kB | time | force RMSE against the teacher | against itself in float64 | "
        "forces against ΔE at 0.1, 0.01, 0.001 Å | drift | by others in the call "
        "| limits crossed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in document["rows"].items():
        steps = ", ".join(f"{value:.2g}" for value in row["disagreement"].values())
        drift = "lost" if row["drift"] is None else f"{row['drift']:+.3f}"
        lines.append(
            f"| {name} | {row['bytes'] / 1e3:.0f} | {row['relative_time']:.2f} "
            f"| {row['teacher_force_rmse']:.4f} | {row['force_rmse']:.2g} | {steps} | {drift} "
            f"| {row['batch_forces']:.1g} | {len(row['crossed']) or ''} |"
        )
    image = f"![Force error against time and size]({PLOT.name})"
    verdict = fill(" ".join(_verdict(document["rows"])), 100)
    return "\n".join([*lines, "", verdict, "", image])


def _verdict(rows: dict[str, Row]) -> list[str]:
    """Return a sentence on INT8 and a sentence on the fastest method within the limits."""
    int8 = min((rows[kind] for kind in KINDS if kind in rows), key=lambda row: row["relative_time"])
    faster = 1.0 / int8["relative_time"]
    smaller = rows["float32"]["bytes"] / int8["bytes"]
    sentences = [
        f"INT8 arithmetic makes a step {faster:.2f} times as fast as float32 and the file "
        f"{smaller:.2f} times smaller; the aim was a factor of 5 to 10."
    ]
    plain = rows["float32"]["teacher_force_rmse"]
    harmless = {
        name: row
        for name, row in rows.items()
        if not row["crossed"] and row["teacher_force_rmse"] <= 1.05 * plain
    }
    fastest = min(harmless, key=lambda name: harmless[name]["relative_time"])
    sentences.append(
        f"Of the methods that keep the force error within 5 %, the fastest is '{fastest}': "
        f"{1 / harmless[fastest]['relative_time']:.1f} times as fast as float32 in ONNX Runtime."
    )
    return sentences


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw errors against time and against size."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    colors = colormaps["tab20"].colors
    rows = document["rows"]
    quantities = (
        ("relative_time", 1.0, "time relative to float32 in ONNX Runtime"),
        ("bytes", 1e-3, "size of the file (kB)"),
    )
    for axes, (key, scale, label) in zip(
        figure.subplots(1, 2, sharey=True), quantities, strict=True
    ):
        for index, (name, row) in enumerate(rows.items()):
            marker, color = "x" if row["crossed"] else "o", colors[index % len(colors)]
            axes.plot(
                scale * row[key], row["teacher_force_rmse"], marker, color=color, ls="none",
                label=name,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("force RMSE against the teacher (eV/Å)")
    figure.axes[1].legend(fontsize="xx-small", frameon=False, title="× crosses documented limits")
    with replaced_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command_line = cli.Parser(
        prog="python validation/compression.py", description=__doc__.split("\n")[0]
    )
    command_line.add_argument("--student", default="tiny", choices=available_students())
    command_line.add_argument("--data", type=Path, default=DATA, help="labeled structures")
    command_line.add_argument(
        "--limit", type=int, default=0, help="number of structures (default: all)"
    )
    command_line.add_argument(
        "--picoseconds", type=float, default=2.0, help="length of NVE dynamics (default: 2)"
    )
    command_line.add_argument("--threads", type=int, default=1)
    command_line.add_argument("--train", type=Path, nargs="+", metavar="FILE", help="training data")
    command_line.add_argument("-o", "--output", type=Path, help="JSON file of the results")
    command_line.add_argument("--page", type=Path, default=PAGE)
    command_line.add_argument("--plot", type=Path, default=PLOT)
    return command_line


def run(arguments: argparse.Namespace) -> None:
    """Measure, write the page and draw."""
    if arguments.output is None:
        arguments.output = RESULTS / f"compression-{arguments.student}.json"
    if not arguments.data.is_file():
        raise FileNotFoundError(f"no data '{arguments.data}'.")
    document = study(arguments)
    text = arguments.page.read_text(encoding="utf-8")
    new = between_marks(text, BEGIN, END, new=table(document), file=str(arguments.page))
    with replaced_when_complete(arguments.page) as temporary:
        temporary.write_text(new, encoding="utf-8")
    draw(document, arguments.plot)
    print(f"{table(document)}\n\nwrote {arguments.page} and {arguments.plot}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 2 if the input is invalid."""
    arguments = parser().parse_args(argv)
    return cli.run(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
