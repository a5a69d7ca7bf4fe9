"""Words of a shell as options, and the help: what a newcomer types, and what is answered."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4image import config
from gpt4image.base.errors import ConfigError
from gpt4image.cli import COMMANDS, _overview, main
from gpt4image.config import DescribeConfig, PredictConfig, TrainConfig
from gpt4image.config.base import RARE
from gpt4image.options import help_text, parse

NEEDED = ["--data", "folder:x", "--out", "run"]


def test_words_are_options_written_in_any_usual_way() -> None:
    words = [*NEEDED, "--val_fraction=0.2", "--no-flip", "--only-described", "--model-args", '{"a": 1}', "--lr", "1e-3"]
    config = parse("gpt4image train", TrainConfig, words, {"epochs": 3, "only_described": False})
    assert isinstance(config, TrainConfig)
    assert (config.val_fraction, config.flip, config.only_described, config.epochs) == (0.2, False, True, 3)
    assert (config.out, config.model_args, config.lr) == (Path("run"), {"a": 1}, 1e-3)
    off = parse("gpt4image train", TrainConfig, [*NEEDED, "--no-only-described"], {"only_described": True})
    assert isinstance(off, TrainConfig) and not off.only_described, "the command line wins over the recipe"


def test_options_may_stand_among_positional_words_and_take_several_values() -> None:
    config = parse("gpt4image predict", PredictConfig, ["run", "a.jpg", "--top", "3", "b.jpg"], {})
    assert isinstance(config, PredictConfig)
    assert (config.model, config.images, config.top) == (Path("run"), ("a.jpg", "b.jpg"), 3)
    words = ["--data", "x", "--store", "s", "--describer", "d", "--prompt", "short", "paper"]
    described = parse("gpt4image describe", DescribeConfig, words, {})
    assert isinstance(described, DescribeConfig) and described.prompt == ("short", "paper")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--zzzz"], "Unknown option --zzzz. `gpt4image train --help-all` lists all options."),
        ([*NEEDED, "--lr", "fast"], "--lr = 'fast': give a number."),
        ([*NEEDED, "--stem", "smal"], "Did you mean 'small'?"),
    ],
)
def test_a_slip_is_answered_with_what_is_wrong_and_what_is_allowed(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("gpt4image train", TrainConfig, words, {})
    assert message in str(caught.value)


def test_help_shows_what_everybody_needs_and_help_all_every_option_by_group() -> None:
    short, whole = (help_text("gpt4image train", TrainConfig, everything=flag) for flag in (False, True))
    assert "--data SPEC" in short and "--epochs N" in short and "--mixup" not in short
    assert len(short.splitlines()) <= 45 and "--help-all lists" in short
    assert "{None}" not in whole and "what everybody needs:" in whole and "regularisation and augmentation:" in whole
    rare = {name for name, field in TrainConfig.model_fields.items() if RARE in field.metadata}
    assert {name for name in TrainConfig.model_fields if f"\n  {TrainConfig.option(name)}" not in whole} == rare


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    texts = [help_text("gpt4image", getattr(config, each.config), everything=True) for each in COMMANDS.values()]
    assert [line for text in [*texts, _overview()] for line in text.splitlines() if len(line) > 80] == []
    example = next(text for text in texts if "distill photos" in text).partition("Example: ")[2].split("\n\n")[0]
    words = ["gpt4image", "distill", "photos", "--describer", "openai:gpt-4.1-mini", "--classes"]
    assert shlex.split(example.replace("\\\n", "")) == [*words, "cat, dog, rabbit", "--max-cost", "5"]


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "train"]) == main(["train", "--help"]) == 0
    first, second = capsys.readouterr().out.split("usage: gpt4image train")[1:]
    assert first.strip() == second.strip()
    assert main(["help"]) == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)


def test_help_needs_little_time() -> None:
    code = "import time; t = time.process_time(); from gpt4image.cli import main; main(['train', '--help']); "
    code += "import sys; print(time.process_time() - t, file=sys.stderr)"
    assert any(float(_stderr(code)) < 0.3 for _ in range(3))


def _stderr(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_options_are_read_by_their_earlier_names(tmp_path: Path) -> None:
    words = ["--data", "x", "--out", "run", "--text-labels", "t.parquet", "--teacher=earlier"]
    for read in (
        parse("gpt4image train", TrainConfig, words, {}),
        TrainConfig.model_validate({"data": "x", "out": "run", "text_labels": "t.parquet", "teacher": "earlier"}),
    ):
        assert isinstance(read, TrainConfig)
        assert (read.targets, read.self_train) == (Path("t.parquet"), Path("earlier"))
