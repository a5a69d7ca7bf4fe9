"""The documentation as a site: it builds without a warning, has every public name, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpt4image
from gpt4image.cli import COMMANDS

ROOT = Path(__file__).parents[1]
LOADED = r"<(?:script|img|iframe|source|video|link)\b[^>]*?\b(?:src|href)=[\"']?((?:[a-z]+:)?//[^\"'> ]+)"


@pytest.fixture(scope="module")
def site(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """The site, built as `make site` builds it: any warning, of a link that leads nowhere too, is an error."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    return once("site", build)


@pytest.mark.slow
def test_every_page_public_name_and_stage_is_on_the_site_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    docs = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    names = {path.as_posix() for path in docs if path.name != "README"}
    names |= {"changelog", "contributing", "notices", "recipes", "api/names", "api/losses", "api/stages"}
    assert [name for name in sorted(names) if not (site / f"{name}.html").is_file()] == []
    reference = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    anchors = set(re.findall(r'id="([\w.]+)"', reference))
    missing = [name for name in gpt4image.__all__ if not any(anchor.endswith(f".{name}") for anchor in anchors)]
    stages = {f"gpt4image.{command.stage.replace(':', '.')}" for command in COMMANDS.values()}
    assert (missing, stages - anchors) == ([], set())
    pages = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    styles = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert set(re.findall(LOADED, pages)) == set()
    assert not re.search(r"(?:url\(|@import\s+)['\"]?(?:https?:)?//", styles)
    assert (site / "search" / "search_index.json").is_file()


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("data.md", "[train](train.md#model) [here](#splits)", "[train](train.md#model) [here](#splits)"),
        ("data.md", "[recipes](../recipes/README.md)", "[recipes](recipes.md)"),
        ("data.md", "[readme](../README.md#install)", "[readme](index.md#install)"),
        ("data.md", "the [source](../src/gpt4image/cli.py) of it", "the source of it"),
        ("research/records/README.md", "[results](../results.md)", "[results](../results.md)"),
        ("recipes.md", "[data](../docs/data.md#shards)", "[data](data.md#shards)"),
        ("contributing.md", "[design](docs/design.md#libraries)", "[design](design.md#libraries)"),
        ("data.md", "```python\nx = f[0](a.md)\n```", "```python\nx = f[0](a.md)\n```"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(page: str, markdown: str, expected: str) -> None:
    of_site = runpy.run_path(str(ROOT / "docs" / "site_pages.py"))["on_page_markdown"]
    assert of_site(markdown, SimpleNamespace(file=SimpleNamespace(src_uri=page))) == expected
