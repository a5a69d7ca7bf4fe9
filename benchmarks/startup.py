"""What every command costs before it does anything."""

from __future__ import annotations

import subprocess
import sys

from measure import Row, seconds_in_turn


def startup() -> list[Row]:
    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    helping, importing = seconds_in_turn(
        lambda: run("-m", "gpt4image", "--help"), lambda: run("-c", "import gpt4image"), rounds=9
    )
    train_help, _ = seconds_in_turn(lambda: run("-m", "gpt4image", "train", "--help"), lambda: None, rounds=5)
    return [
        Row(name="gpt4image --help", ours=helping, limit=0.3, unit="s", goal=("<=", 1)),
        Row(name="gpt4image train --help", ours=train_help, limit=0.3, unit="s", goal=("<=", 1)),
        Row(name="import gpt4image", ours=importing, limit=0.5, unit="s", goal=("<=", 1)),
    ]
