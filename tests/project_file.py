"""What pyproject.toml says, and which of its extras are only for developing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
DEVELOPMENT = {"dev", *re.findall(r"[\w-]+", EXTRAS["dev"][0].partition("[")[2])}
