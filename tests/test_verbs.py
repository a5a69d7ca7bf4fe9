"""Every command as a function."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import gpt4image
from gpt4image import verbs
from gpt4image.base.errors import ConfigError, DataError, RunError


def test_every_command_is_a_function_of_its_options(tmp_path: Path) -> None:
    assert set(verbs.VERBS) == set(gpt4image._VERBS)
    assert "data" in inspect.signature(gpt4image.train).parameters
    with pytest.raises(ConfigError, match=r"val_fractoin.*val_fraction=|val_fraction"):
        gpt4image.train(data="openmoji", out=tmp_path / "run", val_fractoin=0.1)
    with pytest.raises(DataError, match="there is no such"):
        gpt4image.train(data=f"folder:{tmp_path / 'absent'}", out=tmp_path / "run")


def test_positional_words_of_a_command_are_positional_arguments(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="absent does not exist"):
        gpt4image.evaluate(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"^data='.*absent.csv': there is no such file or folder"):
        gpt4image.train(data=tmp_path / "absent.csv", out="run")
    with pytest.raises(TypeError, match="positional arguments are run_dir; all others are keywords"):
        gpt4image.evaluate("run", "test")
    with pytest.raises(ConfigError, match=r"^run_dir= is required"):
        gpt4image.evaluate()
    with pytest.raises(ConfigError, match=r"epochs='three': give a whole number"):
        gpt4image.train(data="openmoji", out="run", epochs="three")


def test_errors_speak_of_keywords() -> None:
    assert verbs.in_python("give --out or --val-fraction 0.1, not a--b") == "give out= or val_fraction=0.1, not a--b"
    assert verbs.in_python("--format coco: run/x") == "format=coco: run/x"
    command = "Write it by `gpt4image label --data SPEC --seed 3 --out t.parquet`, or `gpt4image --help`."
    call = "Write it by `gpt4image.label(data=SPEC, seed=3, out='t.parquet')`, or `gpt4image --help`."
    assert verbs.in_python(command) == call
