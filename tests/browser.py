"""Pages in headless Chromium, as people see them: at four widths, light and dark."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (320, 390, 768, 1280)
SCHEMES = ("light", "dark")
BACKGROUND = {"light": "rgb(253, 253, 251)", "dark": "rgb(20, 23, 26)"}
CHECK = """<!doctype html><body><script>
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const sticksOut = e => e.getBoundingClientRect().right > frame.clientWidth + 0.5 && !e.closest("svg g, .hidden");
    const shown = [...page.querySelectorAll(".chart svg")].filter(svg => svg.getBoundingClientRect().width > 0);
    const text = [...page.querySelectorAll(".chart svg text")];
    const cards = [...page.querySelectorAll(".large > .card > img")].map(e => e.getBoundingClientRect());
    return {
      width: frame.clientWidth, scroll: root.scrollWidth,
      outside: [...page.querySelectorAll("body *")].filter(sticksOut).map(e => e.outerHTML.slice(0, 80)),
      cut: text.filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && (box.right > frame.clientWidth || box.left < 0);
      }).map(e => e.textContent),
      charts: [...new Set(shown.map(svg => svg.getAttribute("class")))],
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      fetched: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name)
        .filter(name => !name.startsWith("data:")),
      broken: [...page.images].filter(image => !image.complete || !image.naturalWidth).length,
      smallest: Math.min(...cards.map(box => Math.min(box.width, box.height)), 9999),
    };
  });
  document.body.textContent = "RESULT" + JSON.stringify(found) + "END";
};
</script>"""
SWITCHES = (
    "headless no-sandbox disable-gpu hide-scrollbars enable-logging=stderr dump-dom no-first-run disable-quic "
    "disable-background-networking disable-component-update disable-sync virtual-time-budget=10000"
)


def load(page: Path, scheme: str = "light") -> tuple[Any, list[str]]:
    """Load a file that leaves RESULT...END, with JSON in between, as its text; return that and console messages."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: install the package chromium to look at the page in a browser")
    command = [browser, *(f"--{switch}" for switch in SWITCHES.split()), "--window-size=1400,1000"]
    command += [f"--user-data-dir={page.parent / 'profile'}", page.as_uri()]
    command += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    result = re.search(r"RESULT(.*)END", html.unescape(done.stdout))
    assert result, done.stdout[:500]
    return json.loads(result[1]), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def fits(pages: str | list[str], folder: Path, scheme: str) -> list[dict[str, Any]]:
    """Check that pages fit every width, show all of themselves and fetch nothing; return what was measured."""
    pages = [pages] if isinstance(pages, str) else pages
    # A frame per width: headless windows are never narrower than 500 pixels. Its content keeps its own policy.
    contents = (html.escape(page.replace("<details", "<details open").replace('loading="lazy"', "")) for page in pages)
    frames = (
        f'<iframe style="border:0;height:3000px;width:{width}px" srcdoc="{content}"></iframe>'
        for content in contents
        for width in WIDTHS
    )
    wrapper = folder / f"wrapper-{scheme}.html"
    wrapper.write_text(CHECK + "".join(frames), encoding="utf-8")
    found, messages = load(wrapper, scheme)
    assert messages == [], "a script that the page's policy had to stop would be named here"
    assert [one["width"] for one in found] == list(WIDTHS) * len(pages)
    for one in found:
        assert one["scroll"] == one["width"], one
        assert (one["outside"], one["cut"], one["broken"], one["fetched"]) == ([], [], 0, []), one
        assert one["smallest"] >= 160, f"large cards show large pictures: {one}"
        assert one["background"] == BACKGROUND[scheme], one
    return found


def act(page: str, script: str, folder: Path) -> tuple[Any, list[str]]:
    """Open a page as the file that it is, do what a script says in it, and return the script's first value.

    The script is added to the page's policy, beside the page's own. It runs again if it loads the page again.
    """
    code = f"addEventListener('load', () => {{ const value = (() => {{ {script} }})();"
    code += " if (value !== undefined) document.body.textContent = 'RESULT' + JSON.stringify(value) + 'END'; });"
    allowed = "'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"
    policy = "script-src " + allowed
    own = page.replace("script-src", policy)
    changed = own if own != page else page.replace("; style-src", f"; {policy}; style-src")
    path = folder / "acted.html"
    path.write_text(changed.replace("</body>", f"<script>{code}</script></body>"), encoding="utf-8")
    return load(path)
