"""The Dockerfile, as far as it can be tested without a daemon. That its files make a wheel: test_wheel.py."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
KNOWN = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "USER", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile: keyword and the rest, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def values(keyword: str) -> list[str]:
    return [rest for word, rest in instructions() if word == keyword]


def copied() -> list[str]:
    """Return the sources that are copied from the repository."""
    return [source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]]


def let_in(path: str) -> bool:
    """Whether .dockerignore, which names all that may come in, lets a path at the top of the repository in."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return "*" in lines and f"!{path}" in lines


def test_only_known_instructions_and_the_first_is_an_argument_or_a_base() -> None:
    words = [word for word, _ in instructions()]
    assert set(words) <= KNOWN
    assert words[0] in ("ARG", "FROM")
    assert words[-2:] == ["ENTRYPOINT", "CMD"]


def test_what_is_copied_is_there_and_let_in() -> None:
    assert copied()
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert [source for source in copied() if not let_in(source)] == []
    assert not let_in(".git") and not let_in("docs")


def test_bases_are_pinned_to_a_patch_version_that_the_package_supports() -> None:
    [version] = [value.partition("=")[2] for value in values("ARG") if value.startswith("PYTHON=")]
    assert re.fullmatch(r"3\.\d+\.\d+-slim-\w+", version)
    assert tuple(map(int, version.split("-")[0].split("."))) >= (3, 11)
    assert all(base.startswith("python:${PYTHON}") for base in values("FROM"))


def test_it_runs_as_a_user_without_rights_and_keeps_no_download() -> None:
    assert values("USER") == ["gpt4image"]
    assert json.loads(values("ENTRYPOINT")[0]) == ["gpt4image"]
    fetching = [rest for rest in values("RUN") if re.search(r"\bpip (install|wheel)\b", rest)]
    assert len(fetching) == 3
    assert all("--no-cache-dir" in rest for rest in fetching)


def test_its_extras_and_every_argument_are_known() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    [named] = [value.partition("=")[2] for value in values("ARG") if value.startswith("EXTRAS=")]
    assert set(named.split(",")) <= extras.keys()
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert [value for value in values("ARG") if f"--build-arg {value.partition('=')[0]}=" not in install] == []
