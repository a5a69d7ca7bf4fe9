"""The screenshots of docs/: their size, and what the command that makes them again lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["report.png", "review.png"])
def test_a_screenshot_is_1280_pixels_wide_and_below_300_kb(name: str) -> None:
    path = DOCS / "images" / name
    with Image.open(path) as image:
        assert image.width == 1280
    assert path.stat().st_size < 300_000


def test_without_a_finished_demo_there_is_a_command_to_make_one(tmp_path: Path) -> None:
    command = [sys.executable, DOCS / "screenshots.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"run `gpt4image demo --out {tmp_path}` first" in done.stderr and "report.html" in done.stderr
