"""What requirements-lock.txt holds, and which part of it an extra needs. The standard library is enough to run it.

python .ci/locked.py EXTRA...      prints the locked packages of the base, of these extras and of the build, with hashes
python .ci/locked.py --lock FILE   prints what `uv pip compile` wrote to FILE as requirements-lock.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-lock.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Which builds of these fit (CPU, CUDA, from which index) depends on the machine. torch itself pins the CUDA packages.
CHOSEN_BY_THE_MACHINE = re.compile(r"torch|torchvision|triton|(nvidia|cuda)-.*")


def named(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()


def entries(text: str) -> dict[str, str]:
    """Return the entries of a lock file (requirement, hashes, what needs it) by normalised name, in their order."""
    return {named(entry): entry for entry in re.findall(r"(?m)^\w.*\n(?:[ ]+.*\n)*", text)}


def needing(entry: str) -> set[str]:
    """Return the packages that need an entry, as its comment `via` names them."""
    return set(map(named, re.findall(r"(?m)^    #(?: via| ) +(?!-)([\w.-]+)", entry)))


def wanted(extras: Iterable[str]) -> set[str]:
    """Return the direct dependencies of the base, of the build and of extras, by normalised name."""
    optional: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    names = {named(each) for each in [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]}
    for requirement in (each for extra in extras for each in optional[extra]):
        inner = re.match(r"gpt4image\[(.*)\]", requirement)
        names |= wanted(inner[1].split(",")) if inner else {named(requirement)}
    return names


def needed(text: str, extras: Iterable[str]) -> dict[str, str]:
    """Return the entries of a lock file that the base, the build and extras need, directly or not."""
    known, found, more = entries(text), set[str](), wanted(extras)
    while more:
        found |= more
        more = {name for name, entry in known.items() if needing(entry) & found} - found
    return {name: entry for name, entry in known.items() if name in found}


def locked(text: str) -> str:
    """Return a compiled lock without what the machine chooses, under the comment of the old one."""
    comment = re.match(r"(#.*\n)*", LOCK.read_text(encoding="utf-8"))
    kept = (entry for name, entry in entries(text).items() if not CHOSEN_BY_THE_MACHINE.fullmatch(name))
    return (comment[0] if comment else "") + "".join(kept)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--lock", compiled]:
            print(locked(Path(compiled).read_text(encoding="utf-8")), end="")
        case [_, *_] as extras:
            print("".join(needed(LOCK.read_text(encoding="utf-8"), extras).values()), end="")
        case _:
            sys.exit(__doc__)
