"""Draw latency and throughput over batch size and over number of atoms, files side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_student.files import replaced_when_complete
from timing.results import Results, Row, growth, lines, read_results

# Okabe and Ito's colors, which color-blind readers can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP"
DPI = 160


@dataclass(frozen=True)
class Quantity:
    """A quantity on the vertical axis.

    Attributes
    ----------
    label : str
    of : callable
        Returns the value of a row.
    """

    label: str
    of: Callable[[Row], float]


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes
    ----------
    name : str
        Name of the file, without suffix.
    kind : str
        Kind of the rows that are drawn.
    phase : str or None
        'molecular' or 'condensed', if the rows have a phase.
    key, label : str
        Horizontal axis: entry of the rows, and its label.
    quantities : tuple of Quantity
        Each has its own row of axes.
    """

    name: str
    kind: str
    phase: str | None
    key: str
    label: str
    quantities: tuple[Quantity, ...]

    def rows(self, results: Results) -> list[Row]:
        """Return the rows that are drawn."""
        wanted = {} if self.phase is None else {"phase": self.phase}
        return results.of(self.kind, **wanted)


def _per_structure(row: Row) -> float:
    return float(row.info["structures"]) / row.seconds


def _per_atom(row: Row) -> float:
    return float(row.info["atoms"]) / row.seconds


_LATENCY = Quantity("latency per call (ms)", lambda row: 1000.0 * row.seconds)
_BATCH = (_LATENCY, Quantity("throughput (structures/s)", _per_structure))
_ATOMS = (_LATENCY, Quantity("throughput (atoms/s)", _per_atom))
CHARTS = (
    Chart("batches", "batch", None, "structures", "structures of 16 atoms in a call", _BATCH),
    Chart("networks", "network", None, "structures", "structures of 16 atoms in a call", _BATCH),
    Chart("molecular", "size", "molecular", "atoms", "atoms, molecules apart", _ATOMS),
    Chart("condensed", "size", "condensed", "atoms", "atoms, liquid", _ATOMS),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "results", type=Path, nargs="+", help="files of pytest benchmarks --benchmark-json"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")


def run(arguments: argparse.Namespace) -> str:
    """Draw all charts for which the files have rows, and return a summary.

    Raises
    ------
    ValueError
        If a file holds no rows that can be drawn.
    """
    files = [read_results(path) for path in arguments.results]
    for path, results in zip(arguments.results, files, strict=True):
        if not any(chart.rows(results) for chart in CHARTS):
            raise ValueError(
                f"'{path}' has no results over batch sizes or atoms to draw; "
                "run pytest benchmarks/test_batches.py benchmarks/test_sizes.py."
            )
    written = []
    for chart in CHARTS:
        if any(chart.rows(results) for results in files):
            path = arguments.output / f"{chart.name}.png"
            save(draw(chart, files), path)
            written.append(path)
    return "wrote " + ", ".join(f"'{path}'" for path in written)


def draw(chart: Chart, files: Sequence[Results]) -> Any:
    """Return a figure with a column for every file; all columns have the same scale."""
    n_rows = len(chart.quantities)
    figure = new_figure(figsize=(0.8 + 4.4 * len(files), 0.8 + 2.8 * n_rows))
    axes = figure.subplots(n_rows, len(files), sharex=True, sharey="row", squeeze=False)
    styles = _styles([chart.rows(results) for results in files])
    for results, column in zip(files, axes.T, strict=True):
        rows_by_line = lines(chart.rows(results), chart.key)
        column[0].set_title(_title(results), fontsize="small")
        for quantity, panel in zip(chart.quantities, column, strict=True):
            panel.set(xscale="log", yscale="log", autoscale_on=False)
            for name, rows in rows_by_line.items():
                label = name if quantity is not chart.quantities[0] else _label(name, rows, chart)
                panel.plot(
                    [row.info[chart.key] for row in rows],
                    [quantity.of(row) for row in rows],
                    label=label,
                    **styles[name],
                )
            panel.grid(alpha=0.25, which="major")
            panel.spines[["top", "right"]].set_visible(False)
        if rows_by_line:
            column[0].legend(fontsize="x-small", frameon=False)
        column[-1].set_xlabel(chart.label)
    drawn = [row for results in files for row in chart.rows(results)]
    axes[0, 0].set_xlim(_limits([row.info[chart.key] for row in drawn]))
    for quantity, panel in zip(chart.quantities, axes[:, 0], strict=True):
        panel.set_ylabel(quantity.label)
        panel.set_ylim(_limits([quantity.of(row) for row in drawn]))
    return figure


def new_figure(**options: Any) -> Any:
    """Return an empty figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "ase-student[plot]"') from error
    return Figure(layout="constrained", **options)


def save(figure: Any, path: Path) -> None:
    """Write a figure; its folder is created if necessary."""
    with replaced_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return limits of a logarithmic axis, with a margin even if all values are equal."""
    return min(values) / 1.4, max(values) * 1.4


def _label(name: str, rows: Sequence[Row], chart: Chart) -> str:
    exponent = growth(rows) if chart.key == "atoms" else None
    return name if exponent is None else f"{name}: atoms^{exponent:.2f}"


def _title(results: Results) -> str:
    cpu = results.hardware.get("cpu")
    return results.name if cpu is None else f"{results.name}\n{cpu}"


def _styles(of_files: Sequence[Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Return the style of each line, equal in all files: color by student, marker by backend."""
    rows = [row for rows in of_files for row in rows]
    students = sorted({str(row.info.get("student")) for row in rows})
    backends = sorted({(str(row.info.get("backend")), str(row.info.get("device"))) for row in rows})
    styles: dict[str, dict[str, Any]] = {}
    for row in rows:
        backend = backends.index((str(row.info.get("backend")), str(row.info.get("device"))))
        styles[row.line] = {
            "color": COLORS[students.index(str(row.info.get("student"))) % len(COLORS)],
            "marker": MARKERS[backend % len(MARKERS)],
            "ls": "--" if row.info.get("properties") == "energy" else "-",
            "lw": 1.2,
            "ms": 4.0,
        }
    return styles
