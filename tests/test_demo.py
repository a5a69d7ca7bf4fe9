"""The demo, short: a part of its photographs, a small model, few steps and no processes; `make demo` has them all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.files import read_json
from gpt4image.config import DemoConfig
from gpt4image.distilling import demo as packaged_demo
from worlds import write_folders

SHORT: dict[str, Any] = {"image_size": 32, "epochs": 1, "model": "resnet10t", "init": "scratch", "freeze": "none",
                         "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}}  # fmt: skip
PER_CLASS = 3


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnxscript", reason="pip install 'gpt4image[demo]'")
    write_folders(tmp_path, PER_CLASS)
    monkeypatch.setattr("gpt4image.data.known_sets.ANSWERS", tmp_path / "answers.jsonl")
    monkeypatch.setattr(packaged_demo, "DATA", f"folder:{tmp_path / 'labelled'}")
    monkeypatch.setattr(packaged_demo, "UNLABELLED", f"folder:{tmp_path / 'unlabelled'}")
    for options in ("FROZEN", "DEPLOYED"):
        monkeypatch.setattr(packaged_demo, options, getattr(packaged_demo, options) | SHORT)
    monkeypatch.setattr(packaged_demo, "ARMS", {"few": ("baseline,asked", 2), "none": ("asked", 0)})
    return tmp_path / "out"


@pytest.mark.slow
def test_the_demo_distills_compares_and_says_how_to_go_on(
    short: Path, runs_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    done = packaged_demo.demo(DemoConfig(out=short, seeds=2, jobs=1))
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("demo: ") and "replayed" in printed[0] and "would cost about $0." in printed[1]
    ended = [line for line in printed if line.startswith("run ")]
    assert len(ended) == 6 and ended[0].startswith("run 1 of 6: ") and all(" left" in line for line in ended[1:-1])
    assert not any("loss" in line and "epoch" not in line for line in printed)
    assert 'distill photos --describer openai:gpt-4.1-mini --classes "' in done.text.splitlines()[-1]
    record = read_json(short / "comparison.json")
    assert [*record["comparisons"]] == ["few", "none"] and record["arms"].keys() == {"baseline", "asked"}
    assert record["comparisons"]["none"]["data"]["labelled"] == 0
    assert all((short / name).is_file() for name in ("report.html", "model/model.onnx", "answers.db"))
    page = (short / "report.html").read_text(encoding="utf-8")
    assert page.count('<ol class="strip') == 2 and "<nav" not in page
    head, folded = page.split("<details", 1)
    assert 'class="chart"' in head and "<table" not in head and "<table" in folded


def test_its_first_line_comes_before_torch() -> None:
    code = "import gpt4image.distilling.demo, sys; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    assert "gpt4image distill photos" in packaged_demo.next_commands(Path("demo-out"))
