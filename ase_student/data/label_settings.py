"""Comparison of the settings of the teachers that made two sets of labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Settings that are versions of packages, which are not expected to change labels.
VERSIONS = frozenset({"package", "torch"})


def settings_difference(
    settings: Mapping[str, Any], other_settings: Mapping[str, Any]
) -> str | None:
    """Return a text about the first setting that differs between two sets of labels, or None.

    Settings that are versions of packages are not compared. A setting that only one side has
    differs.

    Parameters
    ----------
    settings, other_settings : mapping
        Settings of teachers as in the metadata of data sets.

    Examples
    --------
    >>> settings_difference({"dtype": "float32", "torch": "2.1"}, {"dtype": "float32"})
    >>> settings_difference({"cutoff_long_range": 12.0}, {"cutoff_long_range": "none"})
    "cutoff_long_range is 12.0 here and 'none' there"
    """
    # Settings from a file have lists where those from a teacher may have tuples.
    first, second = (
        json.loads(json.dumps(dict(mapping), default=str)) for mapping in (settings, other_settings)
    )
    for key in sorted((first.keys() | second.keys()) - VERSIONS):
        if key not in first or key not in second or first[key] != second[key]:
            value, other_value = (
                repr(mapping[key]) if key in mapping else "not given" for mapping in (first, second)
            )
            return f"{key} is {value} here and {other_value} there"
    return None
