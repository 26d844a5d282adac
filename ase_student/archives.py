"""Check of the zip archives that torch writes, before they are read.

torch writes a checksum for each member, but does not check it when it reads, so that damaged
weights would be loaded. A few kilobytes could also unpack to more than the memory.
"""

import io
import zipfile
from pathlib import Path

__all__ = ["check_archive"]

#: Largest allowed size of an unpacked archive, bytes.
LARGEST_CONTENT = 512 * 2**20


def check_archive(source: Path | bytes, name: str) -> list[str]:
    """Return the names of the members of an archive, after checking all checksums.

    Parameters
    ----------
    source : path or bytes
    name : str
        Name of the archive in messages.

    Raises
    ------
    ValueError
        If the archive is damaged, unpacks to more than 512 MB, or has two members of one name.
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
    # zipfile and zlib raise exceptions of many types for a damaged archive.
    except Exception as error:
        raise ValueError(f"'{name}' is damaged: {error}") from error
    if damaged is not None:
        raise ValueError(f"'{name}' is damaged: the checksum of '{damaged}' in it is wrong.")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"'{name}' is damaged: two of its members have the same name.")
    return names
