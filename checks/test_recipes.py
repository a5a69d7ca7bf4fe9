"""Recipes load, their headers say how they were run, and every command there is one that the command line takes."""

import importlib
import re
from pathlib import Path

import pytest

from gpt4image.config import CompareConfig
from gpt4image.options import load_recipe
from repository import README, RECIPES, ROOT, SHIPPED, Block, command_of, header_of, parse_commands


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_shipped_recipe_loads_and_says_how_it_was_run(path: Path) -> None:
    assert load_recipe(path, CompareConfig, data="cifar10", embeddings=Path("t.emb"), out=Path("out")).seeds >= 3
    for word in ("Command:", "Hardware:", "Time:", "Expected:", f"recipes/{path.relative_to(RECIPES).as_posix()}"):
        assert word in header_of(path)


def test_the_commands_of_headers_are_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path in SHIPPED:
        parse_commands(Block("bash", command_of(path), 1, "", 0), path, monkeypatch)


def test_every_path_and_name_in_the_readmes_is_there() -> None:
    texts = README + (ROOT / "README.md").read_text(encoding="utf-8")
    paths = re.findall(r"(?:recipes|benchmarks|docs|examples|tests|src)/[\w./-]*\w", texts)
    paths += [f"recipes/{name}" for name in re.findall(r"`([\w-]+/)`", README)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for name in re.findall(r"`([\w-]+\.toml)`", README):
        assert list(RECIPES.rglob(name)), name
    for module, name in re.findall(r"`(gpt4image\.[\w.]+)\.(\w+)`", texts):
        assert hasattr(importlib.import_module(module), name)
