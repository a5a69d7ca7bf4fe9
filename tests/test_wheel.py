"""The wheel, whole and enough to work with where nothing of the source tree is; and the Dockerfile, without a daemon.

The wheel is built from the files that the Dockerfile copies. The packages it depends on are those that the tests have,
since to fetch them anew would take minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from project_file import DEVELOPMENT, EXTRAS

ROOT = Path(__file__).parents[1]
MOST_BYTES = 12_000_000


def values(keyword: str) -> list[str]:
    """Return what follows each instruction of a kind in the Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.split(maxsplit=1)[:1] == [keyword]]


def copied() -> list[str]:
    """Return the sources that are copied from the repository."""
    return [source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]]


def test_the_dockerfile_copies_what_is_there_pins_its_base_and_runs_without_rights() -> None:
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied() and [source for source in copied() if not (ROOT / source).exists()] == []
    assert {"*", *(f"!{source}" for source in copied())} <= set(let_in)
    arguments = dict(value.split("=", 1) for value in values("ARG") if "=" in value)
    assert re.fullmatch(r"3\.1[1-9]\.\d+-slim-\w+", arguments["PYTHON"])
    assert all(base.startswith("python:${PYTHON}") for base in values("FROM"))
    assert set(arguments["EXTRAS"].split(",")) <= EXTRAS.keys()
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert [name for name in arguments if f"--build-arg {name}=" not in install] == []
    assert (values("USER"), values("ENTRYPOINT")) == (["gpt4image"], ['["gpt4image"]'])


def run(*command: object, cwd: Path) -> str:
    """Run a command with nothing of this environment but its programs, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture
def wheel(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    pytest.importorskip("hatchling", reason="builds the wheel without network: it is in the extra test")

    def build(source: Path) -> None:
        for name in copied():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, source / name)
        options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "wheels", ".")
        run(sys.executable, "-m", "pip", "wheel", *options, cwd=source)

    [built] = (once("wheel", build) / "wheels").iterdir()
    return built


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """Programs of a new environment: the wheel is installed in it, other packages are lent by that of the tests."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    install = ("install", "--quiet", "--no-index", "--no-deps", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=tmp_path)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path).strip()
    # A path in a .pth file lends packages, but not what .pth files there add: the source tree stays out.
    (Path(packages) / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return python.parent


@pytest.mark.slow
def test_it_is_small_and_holds_every_file_of_the_package_its_licences_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    about = f"{wheel.name.rsplit('-', 3)[0]}.dist-info"
    files = [path for path in (ROOT / "src" / "gpt4image").rglob("*") if path.is_file()]
    source = {path.relative_to(ROOT / "src").as_posix() for path in files if path.parent.name != "__pycache__"}
    assert wheel.stat().st_size < MOST_BYTES
    assert {name for name in names if not name.startswith(about)} == source
    assert {f"{about}/licenses/{name}" for name in ("LICENSE", "THIRD_PARTY_NOTICES.md")} < names
    assert {"gpt4image/py.typed", "gpt4image/__init__.pyi", "gpt4image/pages/templates/base.html"} < names


@pytest.mark.slow
def test_it_works_far_from_the_source_tree(installed: Path, colour_folder: Path) -> None:
    work = colour_folder.parent
    code = "import gpt4image; print(gpt4image.__file__)"
    assert Path(run(installed / "python", "-c", code, cwd=work).strip()).is_relative_to(installed.parent)
    told = json.loads(run(installed / "gpt4image", "doctor", "--json", cwd=work))
    assert [name for name, extra in told["extras"].items() if extra["missing"] and name not in DEVELOPMENT] == []
    train = f"train --data folder:{colour_folder} --epochs 1 --threads 1 --out run"
    code = f"from gpt4image.cli import main; print([main(each.split()) for each in ({train!r}, 'report run')])\n"
    code += "from gpt4image.data import load_dataset; print(len(load_dataset('clothes')))"
    assert run(installed / "python", "-c", code, cwd=work).splitlines()[-2:] == ["[0, 0]", "1722"]
    assert "<html" in (work / "run" / "report.html").read_text(encoding="utf-8")
