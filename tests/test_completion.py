"""The completion script, in a real shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gpt4image import cli
from gpt4image.completion import completion
from gpt4image.config import CompletionConfig


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shell") / "gpt4image"
    path.write_text(completion(CompletionConfig(shell="bash")).text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["tr"], {"train"}),
        (["descriptions", "im"], {"import"}),
        (["descriptions", ""], {"import", "export"}),
        (["train", "--align-lo"], {"--align-loss"}),
        (["train", "--align-loss", "i"], {"infonce", "infonce-one-way"}),
        (["train", "--epochs", "3", "--no-fl"], {"--no-flip"}),
    ],
)
def test_bash_completes(words: list[str], found: set[str], script: Path) -> None:
    typed = " ".join(f"'{word}'" for word in ["gpt4image", *words])
    code = (
        f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; "
        "$(complete -p gpt4image | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    told = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert found <= set(told.stdout.split())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == cli.OK
    told = capsys.readouterr().out
    assert all(word in told for name in cli.COMMANDS for word in name.split())
