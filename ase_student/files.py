"""Writing files so that incomplete files are never visible; hashes and messages of files."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def folder_for_output(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Create a folder and its parents; after the block remove new ones that are still empty."""
    folder = Path(folder).absolute()
    new_folders = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        # From the innermost outwards; a folder that is not empty stays, and so do its parents.
        with suppress(OSError):
            for parent in new_folders:
                parent.rmdir()


def type_and_message(error: Exception) -> str:
    r"""Return the type and message of an exception in one line.

    Examples
    --------
    >>> type_and_message(OSError("no\nspace"))
    'OSError: no space'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


def reason_of(error: Exception) -> str:
    """Return a text on why the content of a file is not as expected.

    Examples
    --------
    >>> reason_of(KeyError("results"))
    "it has no 'results'"
    """
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not a text in UTF-8"
    return f"{type(error).__name__}: {error}"


@contextmanager
def replaced_when_complete(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` and rename it to ``path`` if the block succeeds.

    After an error the temporary file and folders that were created for it are removed, and an older
    file at ``path`` is unchanged. The temporary name keeps the suffix, because some writers depend
    on it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.partial{path.suffix}")
    with folder_for_output(path.parent):
        try:
            yield temporary
            # Some writers create files that only their owner can read.
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def between_marks(text: str, begin: str, end: str, *, new: str, file: str) -> str:
    r"""Return a page with the text between two marks replaced.

    Parameters
    ----------
    text : str
        Text of the page.
    begin, end : str
        The marks, which are lines.
    new : str
        The new text.
    file : str
        Name of the page in messages.

    Raises
    ------
    ValueError
        If the page does not have the marks once and in order.

    Examples
    --------
    >>> between_marks("a\n<\nold\n>\nz", "<", ">", new="new", file="page.md")
    'a\n<\nnew\n>\nz'
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"'{file}' must hold the lines '{begin}' and '{end}' once each.")
    text_before, _, text_from_mark = text.partition(begin)
    return f"{text_before}{begin}\n{new}\n{end}{text_from_mark.partition(end)[2]}"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """Return the mask of permissions of new files; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def check_output(path: Path) -> None:
    """Raise an error if a file cannot be written, before any work is done for it."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder '{path.absolute().parent}' to write '{path.name}' to.")
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; give the name of a file.")
