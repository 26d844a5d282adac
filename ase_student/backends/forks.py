"""Objects that a forked process must renew: only the thread that forked goes on there."""

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """What holds locks or threads."""

    def renew_after_fork(self) -> None:
        """Replace in a forked process what the other threads of its parent held."""


_renewable: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renew_in_forks(renewable: Renewable) -> None:
    """Let every process that is forked from now on renew an object, as long as it exists."""
    _renewable.add(renewable)


def _after_fork_in_child() -> None:
    for renewable in _renewable:
        renewable.renew_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
