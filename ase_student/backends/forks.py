"""Renew objects in forked processes, in which only the thread that forked continues to run."""

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """An object that holds locks or threads."""

    def renew_after_fork(self) -> None:
        """Replace, in a forked process, locks and threads that the parent's other threads held."""


_renewable: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renew_in_forks(renewable: Renewable) -> None:
    """Renew an object in every process that is forked from now on, as long as it exists."""
    _renewable.add(renewable)


def _after_fork_in_child() -> None:
    for renewable in _renewable:
        renewable.renew_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
