"""Folders of finished chunks of work, which belong to a job and survive an interruption."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ase_student.files import folder_for_output, replaced_when_complete

_NAME = "job.json"


def check_job(folder: Path, job: Mapping[str, Any], what: str) -> bool:
    """Return whether a folder belongs to this job; False if it belongs to no job yet.

    Parameters
    ----------
    folder : path
    job : mapping
        Everything that determines the content of the folder, as JSON types.
    what : str
        Content of the folder and how it was made, for the message: 'labels made'.

    Raises
    ------
    ValueError
        If the folder belongs to another job.
    """
    path = folder / _NAME
    if not path.exists():
        return False
    earlier_job = json.loads(path.read_text(encoding="utf-8"))
    # Through JSON, which turns tuples into lists.
    current_job = json.loads(json.dumps(job))
    different_keys = sorted(key for key in current_job if earlier_job.get(key) != current_job[key])
    if different_keys:
        raise ValueError(
            f"'{folder}' holds {what} with other {', '.join(different_keys)}: "
            "delete it or write to another file."
        )
    return True


def begin_job(folder: Path, job: Mapping[str, Any]) -> None:
    """Create a folder that belongs to a job."""
    folder.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(folder / _NAME) as temporary:
        temporary.write_text(json.dumps(job, indent=1), encoding="utf-8")


class ChunkStore:
    """Finished chunks of work on disk, one archive each, in a folder that belongs to a job.

    A chunk is a mapping of names to arrays and has a key, which is the name of its file. The folder
    is created with the first chunk.

    Parameters
    ----------
    folder : path
    job : dict
        Everything that determines the chunks, as JSON types.
    what : str
        Content of the folder and how it was made, for the message: 'labels made'.

    Raises
    ------
    ValueError
        If the folder belongs to another job.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], *, what: str) -> None:
        self.folder, self._job = folder, dict(job)
        self._is_begun = check_job(folder, self._job, what)

    def path(self, key: str) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"{key}.npz"

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys of chunks that are not finished, in the given order."""
        return [key for key in keys if not self.path(key).exists()]

    def write(self, key: str, arrays: Mapping[str, Any]) -> None:
        """Write a finished chunk."""
        if not self._is_begun:
            begin_job(self.folder, self._job)
            self._is_begun = True
        with (
            replaced_when_complete(self.path(key)) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez_compressed(file, **arrays)

    def read(self, key: str) -> dict[str, NDArray[Any]]:
        """Return a finished chunk.

        Raises
        ------
        ValueError
            If it cannot be read.
        """
        path = self.path(key)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as chunk:
                return {name: chunk[name] for name in chunk.files}
        except (ValueError, EOFError, BadZipFile, zlib.error) as error:
            raise ValueError(
                f"'{path}' is damaged: delete it and run the same command again."
            ) from error


def numbered(index: int) -> str:
    """Return the key of a chunk with a number."""
    return f"{index:06d}"


def what_to_install(error: ModuleNotFoundError) -> ImportError:
    """Return the error that names the extra to install for a missing package."""
    return ImportError(f'distillation needs {error.name}: pip install "ase-student[distill]"')


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Prevent other processes from writing the same file, or its pieces, during the block.

    A folder that is created for the file and is still empty after the block is removed.

    Raises
    ------
    ValueError
        If another process is writing it.
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
