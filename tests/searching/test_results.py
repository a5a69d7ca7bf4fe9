"""The page of what was found."""

from __future__ import annotations

import re
from pathlib import Path

from browser import SCHEMES, fits
from search_cases import COLOURS, ask, keys, noisy


def test_the_page_shows_what_was_found_and_acts_on_no_text(copied: Path, decoded: list[int]) -> None:
    ask(copied, "red")
    strange = copied / "colours" / "red" / "<img src=x onerror=alert(1)>.png"
    noisy(COLOURS["red"], 9).save(strange)
    page = copied / "found.html"
    query = "red <script>alert(1)</script>"
    found = ask(copied, query, image=(copied / "colours" / "blue" / "00.png",), top=20, html=page)
    assert found.path == page and strange.name in {key.split("/")[1] for key in keys(found)}
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "<img src=x" not in text
    assert "red &lt;script&gt;" in text and "&lt;img src=x onerror" in text
    pictures = re.findall(r'src="(data:image/webp;base64,[^"]+)"', text)
    assert len(pictures) == 41, "twenty of each query, and the picture that was asked for"
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    for scheme in SCHEMES:
        fits(text, copied, scheme)
