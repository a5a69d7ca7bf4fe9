"""What the repository says beside the code: pages and their blocks, recipes, pyproject.toml, the Dockerfile.

A comment on the line before a block of a page: `<!-- not run: REASON -->` lets it only be parsed, `<!-- exit code 1:
REASON -->` says how its last command ends.
"""

import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from gpt4image import cli
from gpt4image.base.outcome import Outcome

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


PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
DEVELOPMENT = {"dev", *re.findall(r"[\w-]+", EXTRAS["dev"][0].partition("[")[2])}


def values(keyword: str, file: Path = ROOT / "Dockerfile") -> list[str]:
    """Return what follows each instruction of a kind in a Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.split(maxsplit=1)[:1] == [keyword]]


def copied() -> list[str]:
    """Return the sources that are copied from the repository."""
    return [source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]]


def parse_commands(block: Block, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line build the configuration of every command, with a stage that does nothing behind it."""
    idle = types.SimpleNamespace(stage=lambda *_configs, **_names: Outcome())
    monkeypatch.setitem(sys.modules, "gpt4image.idle", idle)  # pyright: ignore[reportArgumentType]
    commands = {name: replace(command, stage="idle:stage") for name, command in cli.COMMANDS.items()}
    monkeypatch.setattr(cli, "COMMANDS", commands)
    monkeypatch.setattr("gpt4image.data.require_apart", lambda _config: None)
    monkeypatch.setattr("gpt4image.next_step.next_step", lambda *_: "")
    for line in command_lines(block):
        words = options_of(line)
        if words is not None:
            assert cli.main(words) == 0, f"{page.name}, line {block.line}: {line}"
        else:
            subprocess.run(["bash", "-nc", line], check=True)
