from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from gpt4image.pages.page import render


def test_values_are_escaped_and_unencodable_text_is_shown() -> None:
    page = render("base.html", title="<b>\"x\" & 'y'\ud800")
    assert "&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;\\ud800" in page
    page.encode("utf-8")


def test_text_that_a_browser_acts_on_and_nobody_sees_is_shown() -> None:
    page = render("base.html", title="a\u202egnp\x1bb")
    assert r"a\u202egnp\x1bb" in page and "\u202e" not in page and "\x1b" not in page


def test_a_name_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("base.html")


def test_the_policy_forbids_scripts_and_the_network() -> None:
    page = render("base.html", title="x")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:;" in page
    assert "http://" not in page
    assert "https://" not in page
