"""Keep freed memory in the process: getting it again costs more than what is computed in it."""

import ctypes
import sys

# From <malloc.h> of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Larger arrays go back to the system; the library takes no more than this.
LARGEST = 32 * 2**20
#: So much that is free at the end of the heap stays.
MOST = 512 * 2**20


def keep_freed_memory() -> None:
    """Let this process keep up to half a GiB of freed memory, where there is the GNU C library.

    An array of torch is freed after the operation that reads it. By default its pages go back to
    the system, which hands out new ones, filled with zeros, to the next array.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST)
        mallopt(_M_TRIM_THRESHOLD, MOST)
