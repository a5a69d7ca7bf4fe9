from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from gpt4image.pages.page import render


def test_values_are_escaped_and_unencodable_text_is_replaced() -> None:
    page = render("base.html", title="<b>\"x\" & 'y'\ud800")
    assert "&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;?" in page
    page.encode("utf-8")


def test_a_name_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("base.html")


def test_the_policy_forbids_scripts_and_the_network() -> None:
    page = render("base.html", title="x")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:;" in page
    assert "http://" not in page
    assert "https://" not in page
