"""Packages of npm for the programs in JavaScript that an export holds."""

import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("onnxruntime-web@1.31.1", "sharp@0.35.6")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of PACKAGES; it is kept for the next tests, since they are large."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine: install Node.js to run the examples in JavaScript")
    folder = Path.home() / ".cache" / "gpt4image-tests" / "-".join(PACKAGES).replace("@", "")
    if not (folder / "node_modules" / ".package-lock.json").is_file():  # which npm writes last
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install {PACKAGES}: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"
