"""The example scripts, run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torchvision.models import resnet18

from gpt4image.data import load_image_set
from gpt4image.data.openmoji import packaged_descriptions
from gpt4image.files import read_json_lines
from gpt4image.text_encoders import load_text_encoder
from tables import make_table

EXAMPLES = Path(__file__).parents[1] / "examples"
CLASSES = 3


@pytest.fixture(scope="module")
def pictograms(tmp_path_factory) -> Path:
    """120 pictograms of three categories in class folders, and the embeddings of their descriptions by MiniLM."""
    pytest.importorskip("resvg_py", reason="drawing the pictograms needs the extra 'demo'")
    folder = tmp_path_factory.mktemp("pictograms")
    images = load_image_set("openmoji")
    text_of = {row["key"]: row["description"] for row in read_json_lines(packaged_descriptions())}
    chosen = [i for label in range(CLASSES) for i in (images.labels == label).nonzero()[0][:40]]
    for i in chosen:
        file = folder / "images" / images.classes[images.labels[i]] / f"{images.keys[i]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.read(i))
    vectors = load_text_encoder("minilm", "cpu").encode([text_of[images.keys[i]] for i in chosen])
    make_table(folder / "table", {images.digests[i]: [vector] for i, vector in zip(chosen, vectors, strict=True)})
    return folder


def test_plain_loop_learns_and_saves_a_plain_backbone(pictograms, tmp_path):
    weights = tmp_path / "resnet18.safetensors"
    command = [sys.executable, EXAMPLES / "plain_loop.py", "--data", f"folder:{pictograms / 'images'}"]
    command += ["--embeddings", pictograms / "table", "--out", weights, "--epochs", "9", "--steps", "16"]
    command += ["--batch-size", "32", "--image-size", "32", "--workers", "0"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "images described" in done.stdout
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    alignment = [float(loss) for loss in re.findall(r"alignment ([\d.]+)", done.stdout)]
    assert len(losses) == len(alignment) == 16
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert sum(alignment[-4:]) < sum(alignment[:4])
    resnet18(num_classes=CLASSES).load_state_dict(load_file(weights), strict=True)
