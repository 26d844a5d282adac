"""Check the zip archives that torch writes before anything reads them.

torch writes a checksum for each member, but does not look at it when it reads: damaged weights
would load. And a few kilobytes could unpack to more than the memory.
"""

import io
import zipfile
from pathlib import Path

__all__ = ["check_archive"]

#: Bytes.
LARGEST_CONTENT = 512 * 2**20


def check_archive(source: Path | bytes, name: str) -> list[str]:
    """Return the names of the members of an archive whose checksums are all right.

    Parameters
    ----------
    source : path or bytes
    name : str
        What messages call it.

    Raises
    ------
    ValueError
        If it is damaged, unpacks to more than 512 MB, or has two members of one name.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > LARGEST_CONTENT:
                raise ValueError(
                    f"'{name}' unpacks to {size / 1e6:,.0f} MB; allowed are "
                    f"{LARGEST_CONTENT / 1e6:,.0f} MB, which no student reaches."
                )
            damaged = archive.testzip()
    except ValueError as error:
        if str(error).startswith(f"'{name}'"):
            raise
        raise ValueError(f"'{name}' is damaged: {error}") from error
    # A damaged archive can make zipfile and zlib raise nearly anything.
    except Exception as error:
        raise ValueError(f"'{name}' is damaged: {error}") from error
    if damaged is not None:
        raise ValueError(f"'{name}' is damaged: the checksum of '{damaged}' in it is wrong.")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"'{name}' is damaged: two of its members have the same name.")
    return names
