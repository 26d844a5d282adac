"""The README's table and plot come from results and model cards."""

import json

import pytest
from timing.commands import main
from timing.readme import BEGIN, END, draw_costs, force_errors, replaced, table
from timing.results import read_results


def row(kind, seconds, student="tiny", backend="native", **info):
    return {
        "name": f"{kind}-{student}", "median_seconds": seconds, "min_seconds": seconds,
        "rounds": 3, "kind": kind, "student": student, "backend": backend, "device": "cpu",
        "threads": 2, **info,
    }  # fmt: skip


def md(milliseconds, **info):
    info = {"system": "aspirin", "milliseconds_per_step": milliseconds, **info}
    return row("md" if "peer" not in info else info.pop("peer"), 0.05 * milliseconds, **info)


ROWS = [
    md(1.234),
    md(0.8, student="ultra-tiny"),
    md(2.0, backend="torch"),
    md(0.5, student="zeros", backend="none"),
    md(33.0, student="SO3LR", backend="so3krates-torch", peer="peer"),
    md(90.0, system="512 waters"),
    md(30.0, system="512 waters", backend="onnx"),
    row("size", 0.07, phase="condensed", atoms=1000, microseconds_per_atom=70.2),
    row("cold start", 0.5, import_seconds=0.2, load_seconds=0.1, first_call_seconds=0.05),
]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "a-processor.json"
    hardware = {"cpu": "a processor"}
    path.write_text(json.dumps({"hardware": hardware, "versions": {}, "results": ROWS}))
    return path


@pytest.fixture
def students(tmp_path):
    folder = tmp_path / "students"
    for name, error in (("tiny", 0.1), ("ultra-tiny", 0.2)):
        (folder / name).mkdir(parents=True)
        content = {"metrics": {"held-out": {"all": {"force_rmse": error}}}}
        (folder / name / "metrics.json").write_text(json.dumps(content))
    return folder


def test_table_has_a_row_for_each_measurement(results):
    caption, rows, peers = table(read_results(results)).split("\n\n")
    assert "2 threads, a processor" in caption.replace("\n", " ")
    assert rows.splitlines() == [
        "| | `tiny` | `ultra-tiny` | zeros |",
        "|---|---|---|---|",
        "| MD step of aspirin (21 atoms) in ASE | 1.2 ms | 0.8 ms | 0.5 ms |",
        "| MD step of 512 waters | 90 ms |  |  |",
        "| MD step of 512 waters, backend `onnx` | 30 ms |  |  |",
        "| per atom, 1,000 atoms of a liquid | 70 µs |  |  |",
        "| import, load and first energy in a new process | 0.35 s |  |  |",
    ]
    assert peers.replace("\n", " ").endswith("`ultra-tiny`: 0.8 ms; `tiny`: 1.2 ms; SO3LR: 33 ms.")
    assert max(map(len, [*caption.splitlines(), *peers.splitlines()])) <= 100


def test_peers_of_another_run_are_compared_with_its_students(results, tmp_path):
    other_run = tmp_path / "peers.json"
    slower = [md(2.5), md(60.0, student="MACE", backend="mace-torch", peer="peer")]
    other_run.write_text(json.dumps({"hardware": {}, "versions": {}, "results": slower}))
    text = table(read_results(results), read_results(other_run))
    assert "1.2 ms" in text
    assert text.replace("\n", " ").endswith("peers.json)): `tiny`: 2.5 ms; MACE: 60 ms.")


def test_plot_of_errors_against_costs(results, students):
    pytest.importorskip("matplotlib")
    errors = force_errors(students, "held-out")
    axes = draw_costs(read_results(results), errors).axes[0]
    points = {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() != "None"
    }
    assert points == {
        "tiny, native": (1.234, 0.1),
        "tiny, torch": (2.0, 0.1),
        "ultra-tiny, native": (0.8, 0.2),
    }
    assert {text.get_text() for text in axes.texts} == {"SO3LR", "zeros"}


def test_the_command_replaces_only_its_block(results, students, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    readme, plot = tmp_path / "README.md", tmp_path / "cost.png"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    command = [
        "readme", str(results), "--readme", str(readme), "--plot", str(plot),
        "--students", str(students), "--errors", "held-out",
    ]  # fmt: skip
    assert main(command) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "1.2 ms" in text
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(command) == 0
    assert readme.read_text(encoding="utf-8") == text
    capsys.readouterr()
    assert main([*command[:-1], "another"]) == 2
    assert "known: 'held-out'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_marks_is_refused(text):
    with pytest.raises(ValueError, match="must hold the lines"):
        replaced(text, "new", "README.md")


def test_missing_and_incomplete_model_cards_are_refused(tmp_path):
    with pytest.raises(ValueError, match="known: none"):
        force_errors(tmp_path, "held-out")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="not a model card"):
        force_errors(tmp_path, "held-out")
