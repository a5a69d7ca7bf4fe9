"""What makes a damaged file again is a command that can be given as it stands, as far as it was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.base.files import write_json, write_text
from gpt4image.base.remedies import remedy


@pytest.mark.parametrize(
    ("name", "beside", "command"),
    [
        ("evaluation-val.json", (), "gpt4image evaluate {} --split val"),
        ("predictions-test-1a2b3c4d.parquet", (), "gpt4image evaluate {} --split test"),
        ("examples.json", ("config.json",), "gpt4image evaluate {}"),
        ("examples.json", (), "gpt4image compare ... --out {}"),
        ("plan.json", (), "gpt4image compare ... --out {}"),
        ("distill.json", (), "gpt4image distill"),
        ("digests-1.npy", ("index.json",), "gpt4image search"),
        ("rows.npy", ("embeddings.npy",), "gpt4image encode --store STORE --out {}"),
        ("model.onnx.md", (), "gpt4image export RUN_DIR"),
        ("config.json", ("README.md",), "gpt4image export RUN_DIR"),
        ("checkpoint.safetensors", ("config.json",), "gpt4image train ... --out {}` with --resume"),
        ("model.safetensors", ("config.json", "run.json"), "train it again: `gpt4image train ... --out {}`"),
        ("labels.parquet", (), "gpt4image label --out {}/labels.parquet"),
        ("notes.txt", (), "Bring back a copy"),
    ],
)
def test_the_command_is_named(tmp_path: Path, name: str, beside: tuple[str, ...], command: str) -> None:
    for other in beside:
        (tmp_path / other).touch()
    assert command.format(tmp_path) in remedy(tmp_path / name)


def test_the_recorded_command_is_named_unless_it_is_no_command_of_ours(tmp_path: Path) -> None:
    write_json(tmp_path / "environment.json", {"command": "gpt4image train --data folder:photos --out run"})
    assert "`gpt4image train --data folder:photos --out run`" in remedy(tmp_path / "config.json")
    for command in ("rm -rf /", "gpt4image train\x1b[2J", 3, None):
        write_json(tmp_path / "environment.json", {"command": command})
        assert f"`gpt4image train ... --out {tmp_path}`" in remedy(tmp_path / "config.json")
    write_text(tmp_path / "environment.json", "[" * 100_000)
    assert "gpt4image train ..." in remedy(tmp_path / "config.json")
