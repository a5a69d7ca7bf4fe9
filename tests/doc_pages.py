"""Pages of the documentation and the blocks of code in them.

A comment on the line before a block: `<!-- not run: REASON -->` lets it only be parsed, `<!-- exit code 1: REASON -->`
says how its last command ends.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


class Block(NamedTuple):
    language: str
    text: str
    line: int
    not_run: str
    exit_code: int


def blocks(page: Path) -> Iterator[Block]:
    pattern = r"^(?:<!-- (?:not run: (.+?)|exit code (\d+): .+?) -->\n)?```(bash|python)\n(.*?)^```$"
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        yield Block(match[3], match[4], text[: match.start(4)].count("\n") + 1, match[1] or "", int(match[2] or 0))


def command_lines(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def options_of(line: str) -> list[str] | None:
    """Return the words after ``gpt4image`` where a line is nothing but one such command."""
    words = shlex.split(line, comments=True)
    plain = not re.search(r"[|<>;&$`]", re.sub(r"'[^']*'|\"[^\"]*\"", "", line))
    return words[1:] if plain and words[:1] == ["gpt4image"] else None


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
