"""The Dockerfile, as far as it can be tested without a daemon. That its files make a wheel: test_wheel.py."""

from __future__ import annotations

import re
from pathlib import Path

from project_file import EXTRAS

ROOT = Path(__file__).parents[1]


def values(keyword: str) -> list[str]:
    """Return what follows each instruction of a kind in the Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.split(maxsplit=1)[:1] == [keyword]]


def copied() -> list[str]:
    """Return the sources that are copied from the repository."""
    return [source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]]


def test_what_is_copied_is_there_and_let_in() -> None:
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied() and [source for source in copied() if not (ROOT / source).exists()] == []
    assert "*" in let_in and {f"!{source}" for source in copied()} <= set(let_in)
    assert "!.git" not in let_in and "!docs" not in let_in


def test_bases_are_pinned_extras_and_arguments_are_known_and_it_runs_without_rights() -> None:
    arguments = dict(value.split("=", 1) for value in values("ARG") if "=" in value)
    assert re.fullmatch(r"3\.1[1-9]\.\d+-slim-\w+", arguments["PYTHON"])
    assert all(base.startswith("python:${PYTHON}") for base in values("FROM"))
    assert set(arguments["EXTRAS"].split(",")) <= EXTRAS.keys()
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert [name for name in arguments if f"--build-arg {name}=" not in install] == []
    assert (values("USER"), values("ENTRYPOINT")) == (["gpt4image"], ['["gpt4image"]'])
    fetching = [rest for rest in values("RUN") if re.search(r"\bpip (install|wheel)\b", rest)]
    assert fetching and all("--no-cache-dir" in rest for rest in fetching)
