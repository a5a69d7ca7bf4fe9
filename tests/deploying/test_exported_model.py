"""What every export says of the model of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gpt4image import __version__
from gpt4image.artifacts import runs
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.training.run_model import load_run_model


def test_the_source_names_the_weights_not_the_folder(small_run: Path) -> None:
    classes = runs.class_names(small_run)
    exported = ExportedModel(run_dir=small_run, model=load_run_model(small_run, None, classes), classes=classes)
    text = exported.metadata.to_json()
    assert str(small_run) not in text
    record, config = json.loads(text), runs.read_config(small_run)
    digest = hashlib.sha256((small_run / "model.safetensors").read_bytes()).hexdigest()
    assert record["source"] == {
        "gpt4image": __version__, "model": config["model"], "arm": config["arm"], "seed": config["seed"],
        "weights_sha256": digest,
    }  # fmt: skip
    assert tuple(record["classes"]) == classes and record["task"] == "classification"
