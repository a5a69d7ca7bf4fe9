"""What the Dockerfile says, read without a daemon."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def values(keyword: str) -> list[str]:
    """Return what follows each instruction of a kind in the Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.split(maxsplit=1)[:1] == [keyword]]


def copied() -> list[str]:
    """Return the sources that are copied from the repository."""
    return [source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]]
