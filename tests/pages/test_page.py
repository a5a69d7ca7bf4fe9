from __future__ import annotations

from gpt4image.pages.page import render


def test_values_are_escaped_and_invisible_text_is_shown_under_a_policy_that_forbids_scripts_and_the_network() -> None:
    page = render("base.html", title="<b>\"x\" & 'y'\ud800a\u202egnp\x1bb")
    assert r"&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;\ud800a\u202egnp\x1bb" in page
    assert "\u202e" not in page and "\x1b" not in page and page.encode("utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:;" in page
    assert "http://" not in page and "https://" not in page
