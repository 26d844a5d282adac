"""Recipes: every step runs once and in order, and no output is lost or mixed up."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

pytest.importorskip("h5py")

from ase_student import StudentCalculator
from ase_student.data.hdf5 import Dataset
from ase_student.distill import steps
from ase_student.distill.__main__ import main
from ase_student.distill.commands import run as commands_run
from ase_student.distill.options import ModelName, Option, moved, output_file, positional
from ase_student.distill.recipes import recipe
from ase_student.distill.recipes.options import Command, toml
from ase_student.distill.recipes.records import (
    ChangedError,
    Record,
    digest,
    state_of,
    write_record,
)

RECIPES = Path(__file__).parents[3] / "recipes"


MISTAKES = {"value": ValueError, "path": FileNotFoundError, "extra": ImportError}


class Copying:
    """A step that joins texts and files; it can be interrupted."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.interrupts = False

    OPTIONS = (
        positional("sources", "", nargs="*", required=False),
        output_file(),
        Option("text", "", required=True),
        Option("times", "", int, default=1, least=1),
        Option("range", "", float, nargs=2),
        Option("kind", "", choices=("plain", "odd")),
        Option("upper-case", "", bool),
        Option("settings", "", Path),
        Option("processes", "", int),
        Option("model", "", ModelName),
        *moved("bend", "angle"),
    )

    def run(self, arguments: argparse.Namespace) -> str:
        self.runs.append(sys.argv[1:])
        if self.interrupts:
            Path(f"{arguments.output}.partial").write_text("half", encoding="utf-8")
            raise KeyboardInterrupt
        text = "".join(path.read_text(encoding="utf-8") for path in arguments.sources)
        text += arguments.text * arguments.times
        if arguments.upper_case:
            text = text.upper()
        if arguments.text in MISTAKES:
            raise MISTAKES[arguments.text]("text is bad.")
        arguments.output.write_text(text, encoding="utf-8")
        Path(f"{arguments.output}.partial").unlink(missing_ok=True)
        return f"{arguments.output}: {len(text)} letters."


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Copying:
    """Make 'copy' a step, in an empty working folder."""
    step = Copying()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "STEPS", {"copy": "", "run": ""})
    for module in (recipe, steps):
        monkeypatch.setattr(module, "step_module", lambda name: step)
    return step


TWO_STEPS = """
[[step]]
command = "copy"
text = "one "
output = "a"

[[step]]
command = "copy"
sources = ["a", "beside.txt"]
text = "two"
output = "b"
"""


def write(text: str, name: str = "r.toml") -> Path:
    Path("beside.txt").write_text("beside ", encoding="utf-8")
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def cook(path: Path = Path("r.toml"), **options: Any) -> str:
    defaults = {"recipe": path, "folder": None, "force": False, "dry_run": False}
    return commands_run.run(SimpleNamespace(**{**defaults, **options}))


def test_outputs_are_found_by_later_steps(step: Copying, capsys: pytest.CaptureFixture) -> None:
    summary = cook(write(TWO_STEPS))
    assert Path("r/b").read_text(encoding="utf-8") == "one beside two"
    assert summary == "r: 2 steps, 0 of them finished in earlier runs."
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/2] copy: r/a is started"
    assert re.fullmatch(r"r/b: 14 letters\. \[\d+ s\]", lines[3])
    # While a step runs, sys.argv is that of a process started for this step.
    assert step.runs[1] == ["copy", "r/a", "beside.txt", "-o", "r/b", "--text=two"]


def test_every_kind_of_option_becomes_part_of_the_command_line(step: Copying) -> None:
    text = """
    folder = "deep/er"
    [[step]]
    command = "copy"
    output = "a"
    text = "-1 $x"
    times = 2
    range = [-1, 1e-3]
    kind = "odd"
    upper_case = true
    [step.settings]
    rate = 1e-3
    [step.settings.shape]
    names = ["x", "y"]
    """
    folder, (only_step,) = recipe.read_recipe(write(text))
    assert folder == Path("deep/er")
    assert only_step.argv == [
        "copy", "-o", "deep/er/a", "--text=-1 $x", "--times=2", "--range", "-1", "0.001",
        "--kind=odd", "--upper-case", "--settings=deep/er/a.settings.toml",
    ]  # fmt: skip
    cook()
    written = Path("deep/er/a.settings.toml").read_text(encoding="utf-8")
    assert written == 'rate = 0.001\nshape = {names = ["x", "y"]}\n'
    assert Path("deep/er/a").read_text(encoding="utf-8") == "-1 $X-1 $X"


def test_a_changed_student_is_refused(step: Copying) -> None:
    step_with = '\n[[step]]\ncommand = "copy"\ntext = "x"\noutput = "{}"\nmodel = "{}"\n'
    names = ("so3lr", "tiny", "beside.txt", "a")
    text = "".join(
        step_with.format(output, name) for output, name in zip("abcd", names, strict=True)
    )
    path = write(text)
    steps = recipe.read_recipe(path)[1]
    assert [step.argv[-1] for step in steps] == [
        "--model=so3lr", "--model=tiny", "--model=beside.txt", "--model=r/a",
    ]  # fmt: skip
    cook(path)
    # A folder with the name of a bundled student is not that student.
    Path("tiny").mkdir()
    Path("tiny/notes").write_text("new", encoding="utf-8")
    cook(path)
    Path("beside.txt").write_text("another", encoding="utf-8")
    with pytest.raises(ValueError, match="step 3 'copy': 'r/c' cannot be reused: .*model"):
        cook(path)


def test_a_table_is_written_as_it_was_read() -> None:
    import tomllib

    table = {
        "a-b_c": 1, "odd key": "quote \" and \\ and\nline", "é": [True, -0.5e-7, float("inf")],
        "deep": {"er": {"list": [[1], []]}}, "empty": {},
    }  # fmt: skip
    assert tomllib.loads(toml(table)) == table


def test_a_dry_run_prints_commands_and_writes_nothing(step: Copying) -> None:
    printed = cook(write(TWO_STEPS), dry_run=True, folder=Path("my folder"))
    assert printed.splitlines() == [
        "python -m ase_student.distill copy -o 'my folder/a' '--text=one '",
        "python -m ase_student.distill copy 'my folder/a' beside.txt -o 'my folder/b' --text=two",
    ]
    assert not Path("my folder").exists()
    assert not step.runs


def test_finished_steps_are_not_repeated(step: Copying, capsys: pytest.CaptureFixture) -> None:
    cook(write(TWO_STEPS))
    assert cook().endswith("2 of them finished in earlier runs.")
    assert len(step.runs) == 2
    assert "[2/2] copy: r/b is finished already\n" in capsys.readouterr().out
    # Options that change no result may change.
    cook(write(TWO_STEPS.replace('"two"', '"two"\nprocesses = 2')))
    assert len(step.runs) == 2


def test_an_interrupted_step_is_continued(step: Copying, capsys: pytest.CaptureFixture) -> None:
    write(TWO_STEPS)
    step.interrupts = True
    with pytest.raises(KeyboardInterrupt):
        cook()
    step.interrupts = False
    capsys.readouterr()
    cook()
    assert "[1/2] copy: r/a is continued\n" in capsys.readouterr().out
    assert Path("r/b").read_text(encoding="utf-8") == "one beside two"


def test_an_interrupted_step_with_other_settings_is_refused(step: Copying) -> None:
    write(TWO_STEPS)
    step.interrupts = True
    with pytest.raises(KeyboardInterrupt):
        cook()
    step.interrupts = False
    with pytest.raises(ValueError, match=r"step 1 'copy': 'r/a' cannot .* text \"one \", the"):
        cook(write(TWO_STEPS.replace("one ", "other ")))
    cook(force=True)
    assert Path("r/a").read_text(encoding="utf-8") == "other "
    assert Path("r/replaced-1/a.partial").read_text(encoding="utf-8") == "half"


@pytest.mark.parametrize(
    ("change", "message", "replaced"),
    [
        (
            lambda: write(TWO_STEPS.replace("one ", "uno ")),
            r"step 1 'copy': 'r/a' cannot .* made with text \"one \", the recipe now has",
            ["a", "b"],
        ),
        (
            lambda: write(TWO_STEPS.replace('"two"', '"two"\ntimes = 2')),
            r"step 2 'copy': 'r/b' .* made with times its default, the recipe now has 2",
            ["b"],
        ),
        (
            lambda: Path("beside.txt").write_text("else", encoding="utf-8"),
            r"step 2 'copy': 'r/b' .* its input \(sources\) has changed",
            ["b"],
        ),
        (
            lambda: Path("r/a").write_text("by hand", encoding="utf-8"),
            r"step 2 'copy': 'r/b' .* its input \(sources\) has changed",
            ["b"],
        ),
        (
            lambda: Path("r/a").unlink(),
            r"step 2 'copy': 'r/b' .* made from an earlier 'r/a', which does not exist now",
            ["b"],
        ),
        (
            lambda: Path("r/b.step.json").unlink(),
            r"step 2 'copy': 'r/b' .* 'r/b' has no record",
            ["b"],
        ),
        (
            lambda: Path("r/b.step.json").write_text("{", encoding="utf-8"),
            r"step 2 'copy': 'r/b' .* 'r/b.step.json' is damaged",
            ["b"],
        ),
    ],
)
def test_nothing_is_replaced_without_force(
    step: Copying, change: Any, message: str, replaced: list[str]
) -> None:
    cook(write(TWO_STEPS))
    change()
    files_before = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    with pytest.raises(ValueError, match=message):
        cook()
    assert {path.name: path.read_bytes() for path in Path("r").iterdir()} == files_before
    assert len(step.runs) == 2
    cook(force=True)
    for name in replaced:
        assert Path("r/replaced-1", name).read_bytes() == files_before[name]
    assert cook().endswith("2 of them finished in earlier runs.")


@pytest.mark.parametrize(
    ("step", "old_settings", "new_settings"),
    [
        ("diatomics", {"diatomics": 60}, {"distances": 60}),
        ("displace", {"crystal": ["Cu"], "md": 0}, {"crystal": ["Cu"], "md": 0}),
        ("structures", {"sets": ["nci"]}, {"sets": ["nci"]}),
    ],
)
def test_records_of_steps_that_were_split_off_are_recognized(
    tmp_path: Path, step: str, old_settings: dict[str, Any], new_settings: dict[str, Any]
) -> None:
    output = tmp_path / "out.h5"
    output.touch()
    write_record(Record("structures", old_settings, {}, {}, "done"), output)
    assert state_of(step, Command(output=output, settings=new_settings), []) == "finished"
    with pytest.raises(ChangedError, match="it was made with seed its default"):
        state_of(step, Command(output=output, settings={**new_settings, "seed": 1}), [])
    with pytest.raises(ChangedError, match=f"it was made by '{step}'"):
        state_of("dimers", Command(output=output, settings=new_settings), [])


def test_frames_continued_by_an_earlier_version_are_recognized(tmp_path: Path) -> None:
    start, output = tmp_path / "own.h5", tmp_path / "out.h5"
    start.write_text("frames", encoding="utf-8")
    output.touch()
    settings = {"dynamics": "so3lr", "steps": 20}
    record = Record("structures", settings, {"continued": [digest(start)]}, {}, "done")
    write_record(record, output)
    command = Command(output=output, settings=settings, inputs={"structures": [start]})
    assert state_of("continue", command, []) == "finished"
    start.write_text("others", encoding="utf-8")
    with pytest.raises(ChangedError, match=r"its input \(structures\) has changed"):
        state_of("continue", command, [])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_failed_step_without_output_may_change(step: Copying, mistake: str) -> None:
    kind = ImportError if mistake == "extra" else ValueError
    with pytest.raises(kind, match=r"r.toml: step 1 'copy': text is bad\."):
        cook(write(TWO_STEPS.replace("one ", mistake)))
    cook(write(TWO_STEPS))
    assert Path("r/a").read_text(encoding="utf-8") == "one "


def test_recipes_that_include_the_same_steps_share_them(step: Copying) -> None:
    Path("data").mkdir()
    write('[[step]]\ncommand = "copy"\ntext = "x"\noutput = "a"\nsources = "in"', "data/d.toml")
    Path("data/in").write_text("in", encoding="utf-8")
    include = 'folder = "out"\ninclude = "data/d.toml"\n[[step]]\ncommand = "copy"\n'
    for name in ("b", "c"):
        cook(write(f'{include}text = "{name}"\noutput = "{name}"\nsources = ["a"]', f"{name}.toml"))
    assert Path("out/c").read_text(encoding="utf-8") == "inxc"
    assert len(step.runs) == 3


STEP = '[[step]]\ncommand = "copy"\ntext = "x"\noutput = "a"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.toml: has no steps"),
        ("step = ", "r.toml: is not TOML: "),
        ("step = 1", r"r.toml: a step must be a table \[\[step\]\]"),
        ("[step]\ncommand = 'copy'", "a step must be a table"),
        ("stp = 1", "r.toml: unknown key 'stp'; allowed: .*, step. Did you mean 'step'"),
        ("folder = 1", "r.toml: 'folder' must be a text; given 1"),
        ("include = 1", "r.toml: 'include' must be a text or an array of texts; given 1"),
        ("include = 'r.toml'", "r.toml: includes itself"),
        ("include = 'none.toml'", "no recipe at 'none.toml'"),
        ("[[step]]", "r.toml: step 1 has no 'command'; available: copy"),
        ("[[step]]\ncommand = 'run'", "step 1 has command = 'run'; available: copy"),
        ("[[step]]\ncommand = 1", "step 1 has command = 1; available: copy"),
        ("[[step]]\ncommand = 'copy'\noutput = 'a'", "r.toml: step 1 'copy': lacks 'text'"),
        ("[[step]]\ncommand = 'copy'\ntext = 'x'", "lacks 'output'"),
        (STEP + "tims = 2", "unknown key 'tims'; allowed: sources, output, text, times, range"),
        (STEP + "tims = 2", r"; allowed: .*\. Did you mean 'times'\?"),
        ("[[step]]\ncommand = 'coppy'", r"'coppy'; available: copy\. Did you mean 'copy'\?"),
        (STEP + "o = 'b'", "unknown key 'o'"),
        (STEP + "upper-case = true\nupper_case = true", "'upper_case' is given twice"),
        (STEP + "times = '2'", "r.toml: step 1 'copy': 'times' must be an integer; given '2'"),
        (STEP + "times = true", "'times' must be an integer; given True"),
        (STEP + "times = 2.0", "'times' must be an integer; given 2.0"),
        (STEP + "times = 0", "'times' is 0; it must be at least 1"),
        (STEP + "angle = 2", "'angle' has moved to the step 'bend'"),
        (STEP + "times = [2]", "'times' must be an integer; given"),
        (STEP + "range = 2", "'range' must be an array of 2; given 2"),
        (STEP + "range = [1]", "'range' must be an array of 2; given 1"),
        (STEP + "range = [1, 'x']", "'range' must be a number; given 'x'"),
        (STEP + "kind = 'even'", "'kind' must be one of 'plain', 'odd'; given 'even'"),
        (STEP + "upper-case = 1", "'upper-case' must be true or false; given 1"),
        (STEP + "settings = 1", "'settings' must be a text, the path of a file; given 1"),
        (STEP + "text2 = {}", "unknown key 'text2'"),
        (STEP + "settings = {at = 2020-01-01}", "cannot hold datetime.date"),
        (STEP.replace("'a'", "'b/a'").replace('"a"', '"b/a"'), "'output' must be a plain name"),
        (STEP.replace('"a"', '".."'), "'output' must be a plain name"),
        (STEP.replace('"a"', "1"), "'output' must be a plain name, without a folder; given 1"),
        (STEP + "sources = []", "'sources' must be an array of at least one; given 0"),
        (STEP + "sources = ['b']", r"'sources' is 'b', but .* \(there is none\), and 'b' does"),
        (STEP + "sources = ['a']", "'sources' is 'a', but no earlier"),
        (STEP + STEP + "", "step 2 'copy': 'a' is made by an earlier step already"),
        (STEP + STEP.replace('"a"', '"b"') + "sources = ['c']", r"earlier step makes it \('a'\)"),
    ],
)
def test_mistakes_are_refused_before_anything_is_run(
    step: Copying, text: str, message: str
) -> None:
    error: Any = FileNotFoundError if "none.toml" in text else ValueError
    with pytest.raises(error, match=message) as caught:
        cook(write(text))
    assert "\n" not in str(caught.value)
    assert not step.runs
    assert not Path("r").exists()


WHOLE = """
[[step]]
command = "structures"
smiles = ["ethanol.smi"]
output = "structures.h5"
md = 80
displaced = 80
cluster = 0
contact = 0
steps = 5

[[step]]
command = "label"
structures = "structures.h5"
output = "labelled.h5"
teacher = "ase.calculators.morse:MorsePotential"

[[step]]
command = "train"
dataset = ["labelled.h5"]
folder = "first"
student = "ultra-tiny"
split = "structure"
[step.settings]
epochs = 2
learning_rate = 1e-3
validate_every = 8
architecture = {features = 8, hidden = 8}

[[step]]
command = "grow"
runs = ["tiny"]
start-structures = ["labelled.h5"]
output = "grown.h5"
teacher = "ase.calculators.morse:MorsePotential"
trajectories = 4
steps = 20
every = 10
frames = 6
device = "cpu"

[[step]]
command = "train"
dataset = ["labelled.h5", "grown.h5"]
folder = "second"
student = "ultra-tiny"
start = "first/weights.safetensors"
split = "structure"
settings = {epochs = 1, architecture = {features = 8, hidden = 8}}
"""


def test_an_interrupted_recipe_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("lightning_fabric")
    from ase_student.distill.training.trainer import Trainer

    monkeypatch.chdir(tmp_path)
    Path("ethanol.smi").write_text("CCO\n", encoding="utf-8")
    path = write(WHOLE, "whole.toml")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_finish", interrupted)
        assert main(["run", str(path)]) == 130
    assert capsys.readouterr().err.endswith("interrupted: run the same command again.\n")
    history = Path("whole/first/history.jsonl").read_text(encoding="utf-8")
    assert main(["run", str(path)]) == 0
    out = capsys.readouterr().out
    assert "[2/5] label: whole/labelled.h5 is finished already" in out
    assert "[3/5] train: whole/first is continued" in out
    assert out.endswith("whole: 5 steps, 2 of them finished in earlier runs.\n")
    # All epochs were trained; only the end of the step was missing.
    assert Path("whole/first/history.jsonl").read_text(encoding="utf-8") == history
    with Dataset("whole/grown.h5") as dataset:
        assert dataset.n_labels == 6
        assert dataset.metadata["command"].startswith("python -m ase_student.distill grow tiny")
    atoms = molecule("CH3CH2OH")
    atoms.calc = StudentCalculator("whole/second/weights.safetensors", backend="torch")
    assert np.isfinite(atoms.get_forces()).all()


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_this_repository_are_valid(path: Path, tmp_path: Path) -> None:
    _, recipe_steps = recipe.read_recipe(path, tmp_path / "nowhere")
    assert recipe_steps
    assert path.name in (RECIPES / "README.md").read_text(encoding="utf-8")
    if path.stem in ("original", "tiny", "ultra-tiny"):
        assert recipe_steps[-1].argv[0] == "bundle"
        assert f"--recipe=recipes/{path.name}" in recipe_steps[-1].argv
