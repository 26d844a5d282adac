"""Records of how outputs were made, by which a recipe tells finished steps from changed ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ase_student import provenance
from ase_student.checkpoint import available_students, resolve_model
from ase_student.distill.recipes.options import Command
from ase_student.files import file_sha256, replaced_when_complete

State = Literal["new", "begun", "finished"]

#: Options that change where or how fast a step runs, but not what it gives.
NEUTRAL = frozenset({"processes", "scheduler", "accelerator", "device", "threads"})

#: Steps that were part of 'structures': the options that tell them, and what these are called now.
_ONCE_STRUCTURES = {
    "continue": {"continued": "structures"},
    "diatomics": {"diatomics": "distances"},
    "displace": {"file": "file", "crystal": "crystal", "surface": "surface"},
}


class ChangedError(Exception):
    """An output was not made as the recipe says now; the message says what differs."""


@dataclass(frozen=True)
class Record:
    """How the output of a step was made.

    Attributes
    ----------
    step : str
    settings : dict
        The options that were given, without paths and what changes no result.
    inputs : dict of str to list of str
        By option, the SHA-256 of what was read.
    made_with : dict
        Date and package versions.
    summary : str or None
        None while the step is not finished.
    """

    step: str
    settings: dict[str, Any]
    inputs: dict[str, list[str]]
    made_with: dict[str, Any]
    summary: str | None = None


def new_record(step: str, command: Command) -> Record:
    """Return the record of a step that is about to begin."""
    settings = {key: value for key, value in command.settings.items() if key not in NEUTRAL}
    inputs = {key: [digest(path) for path in paths] for key, paths in command.inputs.items()}
    return Record(step, settings, inputs, provenance.metadata("", "torch", "rdkit"))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, of a student by its name, or of a folder.

    Of a folder with ``weights.safetensors``, a training run, only this file counts.
    """
    if str(path) in available_students() or not path.is_dir():
        return file_sha256(resolve_model(str(path)))
    if (path / "weights.safetensors").is_file():
        return digest(path / "weights.safetensors")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = [[file.relative_to(path).as_posix(), digest(file)] for file in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def record_path(output: Path) -> Path:
    """Return where the record of an output is."""
    return output.with_name(f"{output.name}.step.json")


def write_record(record: Record, output: Path) -> None:
    """Write the record of an output beside it."""
    with replaced_when_complete(record_path(output)) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def read_record(output: Path) -> Record | None:
    """Return the record of an output, None if there is none.

    Raises
    ------
    ChangedError
        If there is one that cannot be read.
    """
    try:
        return _renamed(Record(**json.loads(record_path(output).read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise ChangedError(f"its record '{record_path(output)}' is damaged") from error


def _renamed(record: Record) -> Record:
    """Return a record with the names that its step and options have now.

    The step 'structures' once did what 'continue', 'diatomics' and 'displace' do.
    """
    given = {*record.settings, *record.inputs}
    step = next((step for step, names in _ONCE_STRUCTURES.items() if given & names.keys()), None)
    if record.step != "structures" or step is None:
        return record
    names = _ONCE_STRUCTURES[step]
    return replace(
        record,
        step=step,
        settings={names.get(key, key): value for key, value in record.settings.items()},
        inputs={names.get(key, key): hashes for key, hashes in record.inputs.items()},
    )


def state_of(step: str, command: Command, pending: Collection[Path]) -> State:
    """Return how far a step is: 'new', 'begun' or 'finished'.

    Parameters
    ----------
    step : str
    command : Command
    pending : collection of path
        Outputs of steps before it that are not finished.

    Raises
    ------
    ChangedError
        If there is an output, or part of one, that was made with other settings or from other
        inputs, or that has no record.
    """
    written = _written(command.output)
    if not written:
        return "new"
    record = read_record(command.output)
    if record is None:
        raise ChangedError(f"'{written[0]}' has no record of how it was made")
    if record.step != step:
        raise ChangedError(f"it was made by '{record.step}'")
    for paths in command.inputs.values():
        for path in paths:
            if any(path == output or output in path.parents for output in pending):
                raise ChangedError(
                    f"it was made from an earlier '{path}', which does not exist now"
                )
    wanted = new_record(step, command)
    for key in sorted({*record.settings, *wanted.settings}):
        before, now = (_shown(settings, key) for settings in (record.settings, wanted.settings))
        if before != now:
            option = key.replace("_", "-")
            raise ChangedError(f"it was made with {option} {before}, the recipe now has {now}")
    changed = [key for key in wanted.inputs if wanted.inputs[key] != record.inputs.get(key)]
    changed += sorted(record.inputs.keys() - wanted.inputs.keys())
    if changed:
        option = changed[0].replace("_", "-")
        raise ChangedError(f"its input ({option}) has changed since")
    return "finished" if record.summary is not None and command.output.exists() else "begun"


def _written(output: Path) -> list[Path]:
    """Return the files and folders that a step has written, finished or not."""
    partial = output.with_name(f"{output.name}.partial")
    return [
        path
        for path in (output, partial)
        if path.is_file() or (path.is_dir() and any(path.iterdir()))
    ]


def _shown(settings: dict[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "its default"


def set_aside(output: Path, folder: Path) -> None:
    """Move what a step has written, and its record, to another folder."""
    folder.mkdir(exist_ok=True)
    for path in (*_written(output), record_path(output)):
        if path.exists():
            path.rename(folder / path.name)
