"""Results are read as they were written, condensed without loss, and plotted."""

import json

import pytest
from timing import plot
from timing.commands import main
from timing.results import ALL, ENERGY, growth, read_results

HARDWARE = {"cpu": "a processor", "cpu_flags": ["avx2"], "cores": 2, "system": "Linux"}


def entry(kind, seconds, **info):
    """Return a result in the layout of pytest-benchmark."""
    extra = {"kind": kind, "student": "tiny", "backend": "onnx", "device": "cpu", **info}
    return {
        "name": f"test_{kind}[{seconds}]",
        "group": kind,
        "stats": {"median": seconds, "min": 0.9 * seconds, "rounds": 5, "data": [seconds] * 5},
        "extra_info": {**extra, "hardware": HARDWARE, "versions": {"python": "3.11"}},
    }


def entries(factor=1.0):
    """Return times that grow linearly with molecules, and with the power 1.5 in a liquid."""
    batches = [
        entry(
            "batch",
            factor * 1e-3 * n**0.5,
            structures=n,
            atoms=16,
            backend=backend,
            properties=properties,
        )
        for n in (1, 8, 64)
        for backend in ("onnx", "torch")
        for properties in (ALL, ENERGY)
    ]
    sizes = [
        entry("size", factor * 1e-6 * n**power, atoms=n, phase=phase, properties=ALL)
        for n in (10, 100, 1000, 10_000)
        for phase, power in (("molecular", 1.0), ("condensed", 1.5))
    ]
    return batches + sizes


@pytest.fixture
def out(tmp_path):
    path = tmp_path / "out.json"
    content = {"machine_info": {"node": "secret"}, "benchmarks": entries()}
    path.write_text(json.dumps(content))
    return path


def test_condensing_keeps_rows_and_drops_the_name_of_the_machine(out, tmp_path):
    condensed = tmp_path / "kept.json"
    assert main(["keep", str(out), "-o", str(condensed)]) == 0
    original, condensed_results = read_results(out), read_results(condensed)
    assert "secret" not in condensed.read_text()
    assert condensed.stat().st_size < out.stat().st_size
    assert original.hardware == condensed_results.hardware == HARDWARE
    assert original.versions == condensed_results.versions
    assert len(original.rows) == len(condensed_results.rows) == len(entries())
    for original_row, condensed_row in zip(original.rows, condensed_results.rows, strict=True):
        assert (
            original_row.name,
            original_row.seconds,
            original_row.lowest_seconds,
            original_row.rounds,
        ) == (
            condensed_row.name,
            condensed_row.seconds,
            condensed_row.lowest_seconds,
            condensed_row.rounds,
        )
        assert {
            **condensed_row.info,
            "hardware": HARDWARE,
            "versions": original.versions,
        } == original_row.info


def written(path, *seconds, python="3.11"):
    """Write the results of a run whose cases have these times."""
    benchmarks = [
        {**entry("md", case_seconds), "name": f"case {i}"} for i, case_seconds in enumerate(seconds)
    ]
    for benchmark in benchmarks:
        benchmark["extra_info"]["versions"] = {"python": python}
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return str(path)


def test_the_median_of_several_runs_is_kept_for_each_case(tmp_path):
    times = [(1.0, 5.0), (3.0, 4.0), (2.0, 9.0)]
    runs = [written(tmp_path / f"{i}.json", *case_times) for i, case_times in enumerate(times)]
    condensed = tmp_path / "kept.json"
    assert main(["keep", *runs, "-o", str(condensed)]) == 0
    assert [row.seconds for row in read_results(condensed).rows] == [2.0, 5.0]
    assert main(["keep", *runs[:2], "-o", str(condensed)]) == 0
    assert [row.seconds for row in read_results(condensed).rows] == [1.0, 4.0]


def test_runs_of_other_cases_or_versions_are_not_mixed(tmp_path, capsys):
    first, condensed = written(tmp_path / "a.json", 1.0), str(tmp_path / "kept.json")
    assert main(["keep", first, written(tmp_path / "b.json", 1.0, 2.0), "-o", condensed]) == 2
    assert "'b' has other cases than 'a'" in capsys.readouterr().err
    newer = written(tmp_path / "c.json", 1.0, python="3.12")
    assert main(["keep", first, newer, "-o", condensed]) == 2
    assert "'c' is of other hardware or versions than 'a'" in capsys.readouterr().err


@pytest.mark.parametrize(("phase", "power"), [("molecular", 1.0), ("condensed", 1.5)])
def test_exponent_of_growth(out, phase, power):
    rows = read_results(out).of("size", phase=phase)
    assert growth(rows) == pytest.approx(power)
    assert growth(rows[:2]) is None


def test_plot_draws_all_lines_of_two_files_side_by_side(out, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    other_run = tmp_path / "other.json"
    other_run.write_text(json.dumps({"benchmarks": entries(2.0)}))
    drawn = {}
    monkeypatch.setattr(plot, "save", lambda figure, path: drawn.update({path.name: figure}))
    assert main(["plot", str(out), str(other_run), "-o", str(tmp_path / "plots")]) == 0
    assert sorted(drawn) == ["batches.png", "condensed.png", "molecular.png"]
    panels = drawn["batches.png"].axes
    assert len(panels) == 4
    for panel in panels:
        assert len(panel.lines) == 4
    lines_by_label = {line.get_label(): line for line in panels[0].lines}
    assert set(lines_by_label) == {
        "tiny, onnx",
        "tiny, onnx, energy alone",
        "tiny, torch",
        "tiny, torch, energy alone",
    }
    assert lines_by_label["tiny, onnx"].get_xdata() == pytest.approx([1, 8, 64])
    assert lines_by_label["tiny, onnx"].get_ydata() == pytest.approx([1.0, 8**0.5, 8.0])
    assert panels[2].lines[0].get_ydata() == pytest.approx([1000.0, 1000 * 8**0.5, 8000.0])
    assert panels[1].lines[0].get_ydata() == pytest.approx([2.0, 2 * 8**0.5, 16.0])
    assert drawn["condensed.png"].axes[0].lines[0].get_label() == "tiny, onnx: atoms^1.50"


def test_plot_writes_pictures(out, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "plots"
    assert main(["plot", str(out), "-o", str(folder)]) == 0
    assert "batches.png" in capsys.readouterr().out
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["batches.png", "condensed.png", "molecular.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no results of pytest benchmarks"),
        ("[]", "holds no results of pytest benchmarks"),
        ("{}", "holds no results of pytest benchmarks"),
        ('{"benchmarks": [{"name": "a"}]}', "holds no results of pytest benchmarks"),
        ('{"benchmarks": []}', "every benchmark was skipped or failed"),
        (json.dumps({"benchmarks": [entry("batch", 0.0)]}), "must be positive"),
        (json.dumps({"benchmarks": [entry("md", 1.0)]}), "no results over batch sizes or atoms"),
    ],
)
def test_files_without_results_are_refused(tmp_path, capsys, content, message):
    path = tmp_path / "out.json"
    path.write_text(content)
    assert main(["plot", str(path), "-o", str(tmp_path / "plots")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "out.json" in error
    assert message in error


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["plot", str(tmp_path / "none.json"), "-o", str(tmp_path)]) == 2
    assert "none.json" in capsys.readouterr().err
