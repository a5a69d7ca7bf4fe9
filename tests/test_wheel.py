"""The wheel, whole and enough to work with where nothing of the source tree is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from repository import DEVELOPMENT, copied

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def install(wheel: Path, folder: Path) -> Path:
    """Return the Python of a new environment that has the wheel; it borrows other packages from that of the tests."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps")
    run(*pip, wheel, cwd=folder.parent)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=folder).strip()
    # A path in a .pth file lends packages, but not what .pth files there add: the source tree stays out.
    (Path(packages) / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return python


@pytest.mark.slow
def test_the_wheel_is_small_holds_every_file_and_works_far_from_the_source_tree(
    colour_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hatchling", reason="builds the wheel without network: it is in the extra test")
    (work := tmp_path / "work").mkdir()
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, work / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", ".", cwd=work)
    [wheel] = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    about = f"{wheel.name.rsplit('-', 3)[0]}.dist-info"
    files = [path for path in (ROOT / "src" / "gpt4image").rglob("*") if path.is_file()]
    source = {path.relative_to(ROOT / "src").as_posix() for path in files if path.parent.name != "__pycache__"}
    assert wheel.stat().st_size < 12_000_000
    assert {name for name in names if not name.startswith(about)} == source
    assert {f"{about}/licenses/{name}" for name in ("LICENSE", "THIRD_PARTY_NOTICES.md")} < names
    shutil.rmtree(work / "src")
    python = install(wheel, tmp_path / "venv")
    told = json.loads(run(python.with_name("gpt4image"), "doctor", "--json", cwd=work))
    extras = told["extras"].items()
    assert [name for name, state in extras if not state.endswith("installed") and name not in DEVELOPMENT] == []
    train = f"train --data folder:{colour_folder} --epochs 1 --threads 1 --out run"
    code = f"from gpt4image.cli import main; print([main(each.split()) for each in ({train!r}, 'report run')])\n"
    code += "import gpt4image.data as data; print(len(data.load_dataset('clothes'))); print(data.__file__)"
    *_, codes, photographs, place = run(python, "-c", code, cwd=work).splitlines()
    assert Path(place).is_relative_to(tmp_path / "venv") and (codes, photographs) == ("[0, 0]", "1722")
    assert "<html" in (work / "run" / "report.html").read_text(encoding="utf-8")
