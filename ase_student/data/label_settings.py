"""Whether two sets of labels were made alike, as the settings of their teachers tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Settings that only name versions of packages, which are not expected to change labels.
VERSIONS = frozenset({"package", "torch"})


def settings_difference(settings: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """Return in words which setting differs between two sets of labels, None if none does.

    Settings that are versions of packages are not compared. One that only one side has differs.

    Parameters
    ----------
    settings, others : mapping
        Settings of teachers as in the metadata of data sets.

    Examples
    --------
    >>> settings_difference({"dtype": "float32", "torch": "2.1"}, {"dtype": "float32"})
    >>> settings_difference({"cutoff_long_range": 12.0}, {"cutoff_long_range": "none"})
    "cutoff_long_range is 12.0 here and 'none' there"
    """
    # What comes from a file has lists where what comes from a teacher may have tuples.
    own, its = (json.loads(json.dumps(dict(one), default=str)) for one in (settings, others))
    for key in sorted((own.keys() | its.keys()) - VERSIONS):
        if key not in own or key not in its or own[key] != its[key]:
            here, there = (repr(one[key]) if key in one else "not given" for one in (own, its))
            return f"{key} is {here} here and {there} there"
    return None
