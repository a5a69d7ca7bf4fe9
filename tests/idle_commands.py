"""Commands that are parsed to the end, with a stage that does nothing behind them."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from doc_pages import Block, command_lines, options_of
from gpt4image import cli
from gpt4image.base.outcome import Outcome


def parse_commands(block: Block, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line build the configuration of every command, with a stage that does nothing behind it."""
    idle = types.SimpleNamespace(stage=lambda *_configs, **_names: Outcome())
    monkeypatch.setitem(sys.modules, "gpt4image.idle", idle)  # pyright: ignore[reportArgumentType]
    commands = {name: replace(command, stage="idle:stage") for name, command in cli.COMMANDS.items()}
    monkeypatch.setattr(cli, "COMMANDS", commands)
    monkeypatch.setattr("gpt4image.data.require_apart", lambda _config: None)
    monkeypatch.setattr("gpt4image.next_step.next_step", lambda *_: "")
    for line in command_lines(block):
        words = options_of(line)
        if words is not None:
            assert cli.main(words) == 0, f"{page.name}, line {block.line}: {line}"
        else:
            subprocess.run(["bash", "-nc", line], check=True)
