"""What every command costs before it does anything."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from measure import Row, seconds_in_turn

IMAGES = 2000


def startup() -> list[Row]:
    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    helping, importing = seconds_in_turn(
        lambda: run("-m", "gpt4image", "--help"), lambda: run("-c", "import gpt4image"), rounds=9
    )
    train_help, _ = seconds_in_turn(lambda: run("-m", "gpt4image", "train", "--help"), lambda: None, rounds=5)
    return [
        Row("gpt4image --help", helping, 0.3, "s", "<= 1"),
        Row("gpt4image train --help", train_help, 0.3, "s", "<= 1"),
        Row("import gpt4image", importing, 0.5, "s", "<= 1"),
    ]


def first_step() -> list[Row]:
    """Measure ``train`` with its defaults until it says what it is about to do, which is before the first step."""
    with tempfile.TemporaryDirectory() as name:
        return [_before_steps(Path(name), side, title) for side, title in ((32, "pictures"), (256, "photographs"))]


def _before_steps(folder: Path, side: int, title: str) -> Row:
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / title / str(number % 10) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        scene.resize((side, side), Image.Resampling.BICUBIC).save(path)
    runs = (folder / f"run-{title}-{number}" for number in itertools.count())

    def start() -> None:
        command = [sys.executable, "-m", "gpt4image", "train", "--data", str(folder / title), "--out", str(next(runs))]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            if not any(line.startswith("steps ") for line in process.stderr or ()):
                raise SystemExit(f"train ended with {process.wait()}")
            process.kill()

    seconds, _ = seconds_in_turn(start, lambda: None, rounds=3)
    name = f"s before the first step of train, {IMAGES:,} {title} of {side} pixels, over 5 s"
    return Row(name, seconds, 5.0, "s", "<= 1")
