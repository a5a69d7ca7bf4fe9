"""The example scripts, run as a user runs them."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import resnet18
from transformers import AutoModelForImageClassification

from gpt4image.base.files import read_json_lines
from gpt4image.config import EncodeConfig
from gpt4image.data import load_dataset
from gpt4image.data.openmoji import packaged_descriptions
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from tables import make_table

EXAMPLES = Path(__file__).parents[1] / "examples"
CLASSES = 3


@pytest.fixture
def pictograms(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """120 pictograms of three categories in class folders, and embeddings of their descriptions."""
    pytest.importorskip("resvg_py", reason="drawing the pictograms needs the extra 'demo'")
    return once("pictograms", write_pictograms)


def write_pictograms(folder: Path) -> None:
    images = load_dataset("openmoji")
    text_of = {row["key"]: row["description"] for row in read_json_lines(packaged_descriptions())}
    chosen = [i for label in range(CLASSES) for i in (images.labels == label).nonzero()[0][:40]]
    for i in chosen:
        file = folder / "images" / images.classes[images.labels[i]] / f"{images.keys[i]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.read(i))
    vectors = load_text_encoder("bag-of-words:384", "cpu").encode([text_of[images.keys[i]] for i in chosen])
    make_table(folder / "table", {images.digests[i]: [vector] for i, vector in zip(chosen, vectors, strict=True)})


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
    return "--data", f"folder:{pictograms / 'images'}", "--embeddings", pictograms / "table"


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
    printed = run("timm_script.py", "--embeddings", pictograms / "table", script, *options)
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
    before, after = (numbers(r"'alignment': ([\d.]+)", run(*words, *more))[-1] for more in ([1], [4, "--resume"]))
    assert after < before and "Restored all states" in caplog.text
    resnet18(num_classes=CLASSES).load_state_dict(load_file(tmp_path / "resnet18.safetensors"), strict=True)


@pytest.mark.slow
def test_search_describes_training_pictures_alone_and_draws_what_it_found(tmp_path, monkeypatch):
    pytest.importorskip("resvg_py", reason="drawing the pictograms needs the extra 'demo'")
    monkeypatch.setattr("gpt4image.config.EncodeConfig", partial(EncodeConfig, encoder="bag-of-words:64"))
    printed = run("search_openmoji.py", "a fruit", "a red sign", "--epochs", 1, "--top", 5, "--out", tmp_path)
    images = load_dataset("openmoji")
    described = {row["key"] for row in read_json_lines(tmp_path / "train.jsonl")}
    assert described == {images.keys[i] for i in images.indices("train")}
    found = re.findall(r"^\d +-?0\.\d{3} +(\S+)", printed, re.MULTILINE)
    assert len(found) == 10 and set(found) <= {images.keys[i] for i in images.indices("test")}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (12 + 5 * 84, 12 + 2 * 114 + 30)
