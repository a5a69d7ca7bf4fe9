"""A model of several labels per image: its exports end with a sigmoid, and predictions name the classes present."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpt4image.artifacts import runs
from gpt4image.base.errors import ModelError, RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import PredictConfig
from gpt4image.deploying import graphs, usage
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.predict import predict
from gpt4image.deploying.timm_folder import write_timm_folder
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.run_model import load_run_model
from trained_runs import rewrite_config

CLASSES = ("hat", "shoe", "=bag")
THRESHOLDS = (0.0, 0.25, 1.0)


@pytest.fixture
def exported(small_run: Path, tmp_path: Path) -> ExportedModel:
    """The small run, as if it had been trained for several labels per image."""
    run = tmp_path / "run"
    run.mkdir()
    for path in small_run.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    rewrite_config(run, {**read_json(run / runs.CONFIG), "task": "multilabel"})
    write_json(run / runs.RUN, {**read_json(run / runs.RUN), "classes": list(CLASSES), "thresholds": THRESHOLDS})
    return ExportedModel(run_dir=run, model=load_run_model(run, None, CLASSES), classes=CLASSES)


def exports(exported: ExportedModel, folder: Path) -> list[Path]:
    pytest.importorskip("onnxscript", reason="pip install 'gpt4image[onnx]'")
    write_timm_folder(folder / "timm", exported)
    graphs.write_onnx(folder / "model.onnx", exported)
    return [exported.run_dir, folder / "timm", folder / "model.onnx"]


def test_every_format_gives_the_sigmoid_of_the_outputs(exported: ExportedModel, tmp_path: Path) -> None:
    side = exported.preprocessing.size
    images = np.random.default_rng(0).random((4, 3, side, side), np.float32)
    with torch.inference_mode():
        outputs = exported.model.backbone(exported.preprocessing.normalised(torch.from_numpy(images)))
    for path in exports(exported, tmp_path):
        classifier = load_classifier(path)
        assert classifier.task == MultiLabel(thresholds=THRESHOLDS) and classifier.classes == CLASSES
        assert classifier.probabilities(images) == pytest.approx(outputs.sigmoid().numpy(), abs=1e-5)


def test_predictions_name_the_classes_present(exported: ExportedModel, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "picture.png")

    def predicted(name: str, **options: Any) -> str:
        images = (str(tmp_path / "picture.png"),)
        predict(PredictConfig(model=exported.run_dir, images=images, out=tmp_path / name, **options))
        return (tmp_path / name).read_text(encoding="utf-8")

    found = json.loads(predicted("out.jsonl", top=3))
    least = dict(zip(CLASSES, THRESHOLDS, strict=True))
    likely = [each["class"] for each in found["predictions"] if each["probability"] >= least[each["class"]]]
    assert "hat" in likely and "=bag" not in likely
    assert found["present"] == likely and len(found["predictions"]) == 3
    row = next(csv.DictReader(predicted("out.csv", top=1).splitlines()))
    assert row["present"].removeprefix("'") == "|".join(likely)
    assert "class_2" not in row


def test_a_task_that_is_not_known_is_named(exported: ExportedModel, tmp_path: Path) -> None:
    path = exports(exported, tmp_path)[1]
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps({**config, "gpt4image_task": "dreams"}), encoding="utf-8")
    with pytest.raises(ModelError, match="another task than those known here: --task 'dreams'"):
        load_classifier(path)


def test_thresholds_that_do_not_fit_are_refused(exported: ExportedModel, tmp_path: Path) -> None:
    run, folder, _ = exports(exported, tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "gpt4image_thresholds": [0.5, "x", 1]}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"config.json: thresholds must be 3 numbers .* not \[0.5, 'x', 1\]; export"):
        load_classifier(folder)
    damaged = replace(exported.metadata, thresholds=(0.5, 2.0, 0.5)).to_json()
    file = onnx_with(tmp_path / "model.onnx", damaged)
    with pytest.raises(ModelError, match=r"model.onnx: thresholds must be 3 numbers between 0 and 1"):
        load_classifier(file)
    write_json(run / runs.RUN, {**read_json(run / runs.RUN), "thresholds": [0.5]})
    with pytest.raises(RunError, match=r"run.json cannot be read as a record \(thresholds must be 3 numbers"):
        load_classifier(run)


def onnx_with(path: Path, metadata: str) -> Path:
    import onnx

    model = onnx.load(path)
    model.metadata_props[0].value = metadata
    onnx.save(model, path)
    return path


def test_a_run_without_thresholds_uses_one_half(exported: ExportedModel, tmp_path: Path) -> None:
    record = read_json(exported.run_dir / runs.RUN)
    del record["thresholds"]
    write_json(exported.run_dir / runs.RUN, record)
    older = replace(exported, model=load_run_model(exported.run_dir, None, CLASSES))
    for path in exports(older, tmp_path):
        assert load_classifier(path).task == MultiLabel()
    assert "gpt4image_thresholds" not in json.loads((tmp_path / "timm" / "config.json").read_text(encoding="utf-8"))
    assert "thresholds = [0.5, 0.5, 0.5]" in usage.example(older, "onnx", path=Path("model.onnx"), repository=None)


@pytest.mark.parametrize("form", ["timm", "onnx", "torch-export"])
def test_the_code_of_the_card_prints_the_classes_present(exported: ExportedModel, form: str) -> None:
    code = usage.example(exported, form, path=Path("model"), repository=None)
    compile(code, "card", "exec")
    assert "softmax" not in code and (".sigmoid()" in code) is (form == "timm")
    found: dict[str, Any] = {
        "classes": CLASSES,
        "probabilities": [0.3, 0.2, 0.9],
        "print": lambda names: shown.extend(names),
    }
    shown: list[str] = []
    exec(code[code.index("thresholds = ") :], found)
    assert found["thresholds"] == list(THRESHOLDS) and shown == ["hat"]
