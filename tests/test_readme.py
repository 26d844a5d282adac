"""The code, commands, links and numbers of the README are correct."""

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def commands(module: str) -> list[list[str]]:
    """Return the arguments of every ``python -m module`` in the README."""
    lines = "\n".join(blocks("bash")).splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[3:] for words in split if words[:3] == ["python", "-m", module]]


def test_python_blocks_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    python_blocks = blocks("python")
    assert python_blocks
    namespace: dict[str, object] = {}
    for block in python_blocks:
        exec(compile(block, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert " eV\n" in printed
    assert "neighbor lists in 100 steps" in printed


def test_export_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from ase_student.export.__main__ import main

    monkeypatch.chdir(tmp_path)
    argument_lists = commands("ase_student.export")
    assert len(argument_lists) == 2
    for arguments in argument_lists:
        assert main(arguments) == 0
    assert "right on" in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "exported").iterdir())
    assert written == ["export.json", "tiny.onnx", "tiny.pt"]


def test_distillation_commands_have_the_options_they_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("h5py")
    from ase_student.distill.__main__ import main

    argument_lists = commands("ase_student.distill")
    assert [arguments[0] for arguments in argument_lists] == [
        "run", "structures", "label", "train", "grow", "train",
    ]  # fmt: skip
    for arguments in argument_lists:
        with pytest.raises(SystemExit, match="0"):
            main([arguments[0], "--help"])
        text = capsys.readouterr().out
        for option in (word for word in arguments if word.startswith("-")):
            assert option in text


#: The commands of the blocks `bash` other than ``python -m``.
OTHER_COMMANDS = ("pip", "printf")
#: Modules whose arguments are parsed here; commands of the export run in another test.
PARSED, RUN = ("ase_student.validation", "ase_student.distill"), ("ase_student.export",)


def test_every_command_is_known_and_its_files_exist() -> None:
    """A command reads files of the repository or what a command above it has written."""
    pytest.importorskip("h5py")
    written: set[str] = set()
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "-m"]:
            assert words[2] in (*PARSED, *RUN), line
            if words[2] in PARSED:
                read, outputs = files_of(words[2], words[3:])
                for path in read:
                    # A training writes its weights into its folder.
                    is_made = bool(written & {path, str(Path(path).parent)})
                    assert is_made or (README.parent / path).exists(), (line, path)
                written |= outputs
        else:
            assert words[0] in OTHER_COMMANDS, line
            written |= {words[-1]} if ">" in words else set()
    assert {"molecules.smi", "labeled.h5", "run2"} <= written


def files_of(module: str, arguments: list[str]) -> tuple[set[str], set[str]]:
    """Return the files that a command reads and writes; its parser refuses unknown options."""
    if module.endswith("validation"):
        from ase_student.validation.settings import parser as parser_of_validation

        parsed = vars(parser_of_validation().parse_args(arguments))
    else:
        from ase_student.cli import Parser
        from ase_student.distill.options import add_options
        from ase_student.distill.steps import step_module

        parser = Parser()
        add_options(parser, step_module(arguments[0]).OPTIONS)
        parsed = vars(parser.parse_args(arguments[1:]))
    outputs = {str(parsed.pop(name)) for name in ("output", "folder") if name in parsed}
    lists = [value if isinstance(value, list) else [value] for value in parsed.values()]
    return {
        str(entry) for entries in lists for entry in entries if isinstance(entry, Path)
    }, outputs


@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "recipes/README.md"]
    + [f"docs/{path.name}" for path in sorted((README.parent / "docs").glob("*.md"))],
)
def test_linked_pages_and_named_paths_exist(name: str) -> None:
    page = README.parent / name
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    roots = (README.parent, README.parent / "ase_student", page.parent)
    for path in re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|toml|md|h|sh|json))`", text):
        assert any((root / path).exists() for root in roots), path


def test_numbers_of_parameters_and_elements_are_correct() -> None:
    from ase.data import chemical_symbols

    from ase_student import load_student
    from ase_student.checkpoint import available_students

    students = [load_student(name) for name in available_students()]
    for student in students:
        assert f"{student.n_parameters:,}" in TEXT
    listed = re.search(r"know ([A-Z][^.]*?), and imitate", TEXT)
    assert listed is not None
    symbols = re.findall(r"[A-Z][a-z]?\b", listed[1])
    for student in students:
        assert symbols == [chemical_symbols[number] for number in student.elements]
