"""The example scripts, run as a user runs them."""

import contextlib
import io
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import load_file
from torchvision.models import resnet18
from transformers import AutoModelForImageClassification

from trained_runs import described, write_pictures

EXAMPLES = Path(__file__).parents[2] / "examples"
CLASSES = 3


@pytest.fixture
def pictograms(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """120 pictograms of three categories in class folders, and embeddings of their descriptions."""
    pytest.importorskip("resvg_py", reason="drawing the pictograms needs the extra 'demo'")

    def fill(folder: Path) -> None:
        described(write_pictures(folder / "images", 40), folder, "bag-of-words:384")

    return once("pictograms", fill)


def run(example: str, *arguments: object) -> str:
    """Run an example as a program does, in this process, which has read the libraries; return all that it printed."""
    words = [str(word) for word in (EXAMPLES / example, *arguments)]
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()) as out,
    ):
        warnings.simplefilter("ignore")  # of libraries, about loops that are not ours
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(EXAMPLES))  # its neighbours, which it imports
        runpy.run_path(words[0], run_name="__main__")
    return out.getvalue()


def numbers(pattern: str, printed: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, printed)]


def falls(losses: list[float], share: float = 1.0) -> bool:
    """Return whether the last four losses are below a share of the first four."""
    return sum(losses[-4:]) < share * sum(losses[:4])


SIZE = ("--batch-size", 32, "--image-size", 32, "--workers", 0)


def data(pictograms: Path) -> tuple[object, ...]:
    return "--data", f"folder:{pictograms / 'images'}", "--embeddings", pictograms / "texts.emb"


@pytest.mark.slow
def test_plain_loop_learns_and_saves_a_plain_backbone(pictograms, tmp_path):
    weights = tmp_path / "resnet18.safetensors"
    printed = run("plain_loop.py", *data(pictograms), *SIZE, "--epochs", 9, "--steps", 16, "--out", weights)
    assert "images described" in printed
    losses, alignment = numbers(r"loss ([\d.]+)", printed), numbers(r"alignment ([\d.]+)", printed)
    assert len(losses) == len(alignment) == 16 and falls(losses, 0.8) and falls(alignment)
    resnet18(num_classes=CLASSES).load_state_dict(load_file(weights), strict=True)


@pytest.mark.slow
def test_timms_script_runs_unchanged_and_its_checkpoints_are_those_of_timm(pictograms, tmp_path):
    script = Path(__file__).with_name("timm_train.py")
    options = ("--data-dir", pictograms / "images", "--num-classes", CLASSES, "--output", tmp_path, "--epochs", 4)
    printed = run("timm_script.py", "--embeddings", pictograms / "texts.emb", script, *options)
    alignment = numbers(r"align_loss ([\d.]+)", printed)
    assert len(alignment) == 12 and falls(alignment)
    timm.create_model("test_resnet", num_classes=CLASSES, checkpoint_path=str(tmp_path / "last.pth.tar"))  # strict


@pytest.mark.slow
def test_the_trainer_of_transformers_learns_and_saves_a_plain_model(pictograms, tmp_path):
    printed = run("hf_trainer.py", *data(pictograms), "--out", tmp_path, *SIZE, "--epochs", 4)
    losses = numbers(r"'loss': '?([\d.]+)", printed)
    assert len(losses) == 8 and falls(losses) and len(numbers(r"'eval_accuracy': '?([\d.]+)", printed)) == 5
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "plain").config.num_labels == CLASSES


@pytest.mark.slow
def test_the_lightning_module_learns_resumes_and_saves_a_plain_backbone(pictograms, tmp_path, caplog):
    pytest.importorskip("lightning", reason="needs the extra 'test'")
    words = ("lightning_module.py", *data(pictograms), "--out", tmp_path, *SIZE, "--epochs")
    before, after = (numbers(r"'alignment': ([\d.]+)", run(*words, *more))[-1] for more in ([1], [3, "--resume"]))
    assert after < before and "Restored all states" in caplog.text
    resnet18(num_classes=CLASSES).load_state_dict(load_file(tmp_path / "resnet18.safetensors"), strict=True)
