"""The recipes of the repository and the commands that they and their README give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
SHIPPED = sorted(path for path in RECIPES.rglob("*.toml") if path.parent.name != "base")
README = (RECIPES / "README.md").read_text(encoding="utf-8")


def header_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n\n")[0]


def command_of(path: Path) -> str:
    found = re.search(r"(?m)^# Command: ((?:.*\\\n#)*.*)$", header_of(path))
    assert found is not None, path
    return found[1].replace("\\\n#", " ")


def commands_of(section: str) -> Iterator[str]:
    part = README.partition(f"## {section}\n")[2].partition("\n## ")[0]
    for block in re.findall(r"(?ms)^```bash\n(.*?)^```$", part):
        yield from block.replace("\\\n", " ").splitlines()
