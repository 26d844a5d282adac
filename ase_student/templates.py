"""Templates of pages and model cards: Jinja files next to the modules that use them."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """Return a template filled with values.

    Values in HTML templates are escaped. All values that a template uses must be given.

    Parameters
    ----------
    template : str
        Path within the package, such as ``'validation/report/report.html.jinja'``.
    **values

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    """
    return _environment().get_template(template).render(**values)


def image(content: bytes) -> str:
    """Return a PNG as a data URL, for the source of an image."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise ImportError("reports and model cards need jinja2: pip install jinja2") from error
    return Environment(
        loader=PackageLoader("ase_student", "."),
        autoescape=lambda name: name is not None and ".html." in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
