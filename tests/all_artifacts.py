"""One small folder of everything that stages write."""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gpt4image import cli
from gpt4image.artifacts.runs import CHECKPOINT
from gpt4image.artifacts.targets import BoxLabels, Facts
from gpt4image.data import load_dataset
from gpt4image.data.regions import Boxes
from gpt4image.training.loop import save_checkpoint
from trained_runs import write_pictures
from worlds import packaged_texts

ARGS = {"channels": [4, 4, 4, 4], "stem_width": 4}
MODEL = ["--model", "resnet10t", "--model-args", json.dumps(ARGS), "--image-size", "16"]
SHORT = ["--epochs", "1", "--batch-size", "8", "--threads", "1", "--precision", "fp32"]
DISTILL = ["distill", "photos", "--describer", "replay:answers.jsonl", "--out", "model", "--format", "timm", *MODEL]
DISTILL += ["--ask", "description,class", "--encoder", "bag-of-words:16", "--epochs", "1", "--precision", "fp32"]
TABLE = ["--embeddings", "model/embeddings", "--targets", "model/targets.parquet"]
COMPARE = ["compare", "--data", "folder:photos", *TABLE[:2], *MODEL, *SHORT, "--arms", "baseline,text-labels"]
COMPARE += ["--seeds", "1", "--labels-per-class", "2", "--out", "comparison"]
TRAIN = ["train", "--data", "folder:photos", *TABLE, *MODEL, *SHORT, "--out", "aligned"]
SEARCH = ["search", "aligned", "a red bus", "--data", "folder:photos"]
COMMANDS = {
    "distill": DISTILL,
    "evaluate": ["evaluate", "model/run", "--split", "val"],
    "train": TRAIN,
    "search": SEARCH,
    "compare": COMPARE,
    "export": ["export", "model/run", "--format", "onnx", "--out", "exported"],
}


def answers() -> None:
    """Write what a multimodal model said about each picture, and the class that it named."""
    text_of = packaged_texts()
    lines = [
        json.dumps({"key": key, "description": text_of[Path(key).stem], "class": key.partition("/")[0]})
        for key in load_dataset("folder:photos").keys
    ]
    Path("answers.jsonl").write_text("\n".join(lines), encoding="utf-8")


def boxes() -> None:
    """Write a file of boxes: one around the middle of each picture."""
    images = load_dataset("folder:photos")
    middle, sure = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32), np.ones(1, np.float32)
    each = Boxes.of_images([(middle, np.array([label]), sure) for label in images.labels.tolist()])
    facts, human = Facts(task="detection", classes=images.classes), np.zeros(len(images), np.bool_)
    found = BoxLabels(keys=images.keys, digests=images.digests, boxes=each, human=human, facts=facts)
    found.save(Path("boxes.parquet"))


def model() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the model and the optimiser of the checkpoint."""
    torch.manual_seed(0)
    linear = nn.Linear(3, 2)
    return linear, torch.optim.SGD(linear.parameters(), lr=0.1)


def make(folder: Path) -> None:
    """Write everything into an empty folder; it is made elsewhere, since records name their place."""
    with tempfile.TemporaryDirectory(prefix="gpt4image-") as place, contextlib.chdir(place):
        write_pictures(Path("photos"), per_class=8)
        answers()
        for command in COMMANDS.values():
            assert cli.main(command) == cli.OK
        boxes()
        linear, optimizer = model()
        Path("begun").mkdir()
        save_checkpoint(Path("begun") / CHECKPOINT, {"model": linear}, optimizer, {"step": 1})
        unread = "*.html *.db-* *.lock .lock comparison/examples.json"  # the last is large, and as model/run's
        for path in (path for pattern in unread.split() for path in Path().rglob(pattern)):
            path.unlink()
        shutil.copytree(place, folder, dirs_exist_ok=True)
