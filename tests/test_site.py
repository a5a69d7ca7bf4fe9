"""The documentation as a site: it builds without a warning, has every public name, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

import gpt4image
from gpt4image.cli import COMMANDS

ROOT = Path(__file__).parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.add(known["href"])
        elif tag in LOADED and LOADED[tag] in known:
            self.loads.add(known[LOADED[tag]])

    def loads_from_elsewhere(self) -> set[str]:
        return {load for load in self.loads if re.match(r"(?:[a-z]+:)?//", load)}


@pytest.fixture(scope="module")
def site(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """The site, built as `make site` builds it: any warning is an error."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    return once("site", build)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def of_site() -> Callable[..., str]:
    """What the hook of MkDocs makes of the text of a page."""
    return runpy.run_path(str(ROOT / "docs" / "site_pages.py"))["on_page_markdown"]


@pytest.mark.slow
def test_every_page_of_the_documentation_is_on_the_site(site: Path) -> None:
    docs = ROOT / "docs"
    names = {
        path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md") if path.name != "README.md"
    }
    elsewhere = {"changelog", "contributing", "notices", "recipes", "api/names", "api/losses", "api/stages"}
    assert [name for name in sorted(names | elsewhere) if not (site / f"{name}.html").is_file()] == []
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
def test_every_public_name_and_every_stage_is_in_the_reference(pages: dict[Path, Page]) -> None:
    anchors = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "api"))
    missing = [name for name in gpt4image.__all__ if not any(anchor.endswith(f".{name}") for anchor in anchors)]
    stages = [f"gpt4image.{command.stage.replace(':', '.')}" for command in COMMANDS.values()]
    assert missing == []
    assert [stage for stage in stages if stage not in anchors] == []


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_page_and_an_anchor_of_it(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are those of the root of a server
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            linked = (path.parent / unquote(target)).resolve() if target else path
            linked = linked / "index.html" if linked.is_dir() else linked
            if not linked.is_file() or (anchor and linked in pages and unquote(anchor) not in pages[linked].anchors):
                broken.append(f"{path.name}: {link}")
    assert broken == []


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    outside = set().union(*(page.loads_from_elsewhere() for page in pages.values()))
    styles = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert outside == set()
    assert not re.search(r"(?:url\(|@import\s+)['\"]?(?:https?:)?//", styles)
    assert (site / "search" / "search_index.json").is_file()


def test_what_a_page_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<link href="https://fonts.org/a.css"><script src="//cdn.org/b.js"></script><img src="c.png">')
    assert Page(page).loads_from_elsewhere() == {"https://fonts.org/a.css", "//cdn.org/b.js"}


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("data.md", "[train](train.md#model)", "[train](train.md#model)"),
        ("data.md", "[recipes](../recipes/README.md)", "[recipes](recipes.md)"),
        ("data.md", "[readme](../README.md#install)", "[readme](index.md#install)"),
        ("data.md", "the [source](../src/gpt4image/cli.py) of it", "the source of it"),
        ("research/records/README.md", "[results](../results.md)", "[results](../results.md)"),
        ("recipes.md", "[data](../docs/data.md#shards)", "[data](data.md#shards)"),
        ("contributing.md", "[design](docs/design.md#libraries)", "[design](design.md#libraries)"),
        (
            "data.md",
            "[out](https://example.org/a.md) [here](#splits)",
            "[out](https://example.org/a.md) [here](#splits)",
        ),
        ("data.md", "```python\nx = f[0](a.md)\n```", "```python\nx = f[0](a.md)\n```"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(
    of_site: Callable[..., str], page: str, markdown: str, expected: str
) -> None:
    assert of_site(markdown, SimpleNamespace(file=SimpleNamespace(src_uri=page))) == expected
