"""Folders of finished pieces of work, which belong to one job and survive an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase_student.files import folder_for_output, replaced_when_complete

_NAME = "job.json"


def check_job(folder: Path, job: dict[str, Any], what: str) -> bool:
    """Say whether a folder was begun by this job; False if it has not been begun at all.

    Parameters
    ----------
    folder : path
    job : dict
        What decides the pieces; JSON only.
    what : str
        What the folder holds and how it came about, for the message: 'labels made'.

    Raises
    ------
    ValueError
        If the folder was begun by another job.
    """
    known = folder / _NAME
    if not known.exists():
        return False
    before = json.loads(known.read_text(encoding="utf-8"))
    # As JSON gives it back: tuples become lists.
    now = json.loads(json.dumps(job))
    differs = sorted(key for key in now if before.get(key) != now[key])
    if differs:
        raise ValueError(
            f"'{folder}' holds {what} with other {', '.join(differs)}: "
            "delete it or write to another file."
        )
    return True


def begin_job(folder: Path, job: dict[str, Any]) -> None:
    """Make a folder that belongs to a job."""
    folder.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(folder / _NAME) as temporary:
        temporary.write_text(json.dumps(job, indent=1), encoding="utf-8")


def what_to_install(error: ModuleNotFoundError) -> ImportError:
    """Return the error that names the extra to install for a missing package."""
    return ImportError(f'distillation needs {error.name}: pip install "ase-student[distill]"')


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same file, and from its pieces, meanwhile.

    Raises
    ------
    ValueError
        If another process is at it.
    """
    try:
        from filelock import FileLock, Timeout
    except ModuleNotFoundError as error:
        raise what_to_install(error) from error
    path = path.absolute()
    with folder_for_output(path.parent):
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(
                f"another process is writing '{path}': wait until it is done, or give another "
                "output."
            ) from error
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
