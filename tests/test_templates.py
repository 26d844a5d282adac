"""Templates of pages and cards."""

import sys

import pytest

pytest.importorskip("jinja2")

from jinja2 import UndefinedError

from ase_student import templates

ORIGIN = [("command", "run <mine> & 'yours'", True)]


def test_values_in_pages_are_escaped():
    text = templates.render("validation/report/base.html.jinja", title="<a>", origin=ORIGIN)
    assert "<h1>&lt;a&gt;</h1>" in text
    assert "<code>run &lt;mine&gt; &amp; &#39;yours&#39;</code>" in text
    # The style sheet is part of the page, not a value.
    assert "#viewer > div {" in text


def test_values_in_cards_are_not_escaped():
    environment = templates._environment()
    assert environment.autoescape("distill/model_card.md.jinja") is False
    assert environment.autoescape("validation/report/report.html.jinja") is True


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError, match="origin"):
        templates.render("validation/report/base.html.jinja", title="a")


def test_missing_jinja_says_what_to_install(monkeypatch):
    templates._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match="need jinja2: pip install jinja2"):
        templates.render("validation/report/base.html.jinja", title="a", origin=[])
