"""Environments of packages that are measured beside gpt4image: each is installed from PyPI into a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def python_with(package: str) -> Path:
    """Return the Python that has ``package`` (NAME==VERSION), in bench-out/NAME-venv; installed the first time."""
    environment = Path("bench-out") / f"{package.partition('==')[0]}-venv"
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
    return python.absolute()
