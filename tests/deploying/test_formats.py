"""Formats: the run's weights, any number of images, nothing pickled, nothing of this machine; and the same model."""

import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gpt4image
from gpt4image.base.errors import ExportError
from gpt4image.config import ExportConfig
from gpt4image.deploying.formats import ExportedModel, write_onnx, write_timm, write_torch_export
from gpt4image.deploying.loading import EXTRA_FILE, Classifier, load_classifier
from gpt4image.deploying.model_card import examples
from gpt4image.tasks.decision import Decision
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training.run_model import load_run_model
from trained_runs import of_several_labels

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

ODD = ("dés \u2028 ' \"", "b\\n", "\U0001f408")


@pytest.fixture(scope="module")
def exported(run_of: Callable[[str], Path]) -> ExportedModel:
    run = run_of("vit-small-stem")
    return ExportedModel(run_dir=run, model=load_run_model(run, None, ODD), classes=ODD)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, 32, 32), dtype=np.float32)


def expected(exported: ExportedModel, batch: np.ndarray) -> np.ndarray:
    how = exported.metadata.preprocessing
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (how.mean, how.std))
    inputs = torch.from_numpy(((batch - mean) / std).astype(np.float32))
    with torch.inference_mode():
        return exported.model.backbone(inputs).softmax(dim=1).numpy()


def assert_same_for_any_number(classifier: Classifier, exported: ExportedModel) -> None:
    assert classifier.classes == ODD
    for count in (1, 2, 7):
        found = classifier.probabilities(images(count))
        np.testing.assert_allclose(found, expected(exported, images(count)), atol=1e-6)


def test_a_torch_export_file_holds_no_pickle_and_no_path(exported: ExportedModel, tmp_path: Path) -> None:
    assert_same_for_any_number(write_torch_export(tmp_path / "model.pt2", exported), exported)
    module = torch.export.load(tmp_path / "model.pt2").module()  # the test wrote it
    np.testing.assert_allclose(module(torch.from_numpy(images(7))).detach(), expected(exported, images(7)), atol=1e-6)
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert files["data/sample_inputs/model.pt"] == b""
    for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
        assert not any(entry["use_pickle"] for entry in json.loads(files[name])["config"].values())
    assert not [name for name, content in files.items() if str(Path(gpt4image.__file__).parents[1]).encode() in content]
    assert b"site-packages" not in files["models/model.json"]
    assert json.loads(files[f"extra/{EXTRA_FILE}"])["classes"] == list(ODD)


@pytest.mark.slow
def test_an_onnx_file_says_what_it_is_and_no_path(exported: ExportedModel, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install 'gpt4image[onnx]'")
    write_onnx(tmp_path / "model.onnx", exported)
    assert_same_for_any_number(load_classifier(tmp_path / "model.onnx"), exported)
    content = (tmp_path / "model.onnx").read_bytes()
    assert b"site-packages" not in content and str(Path(gpt4image.__file__).parents[1]).encode() not in content
    graph: Any = onnx.load_from_string(content).graph
    (put_in,), (put_out,) = graph.input, graph.output
    assert (put_in.name, put_out.name) == ("images", "probabilities")
    assert put_in.type.tensor_type.shape.dim[0].dim_param, "the number of images is open"


class Deciding(nn.Module):
    """A model that torch cannot trace: what it computes depends on the pixels."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(dim=(2, 3)) if inputs.sum() > 0 else inputs.amax(dim=(2, 3))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(exported: ExportedModel, tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_torch_export(tmp_path / "model", exported)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", [write_torch_export, write_onnx])
def test_what_cannot_be_traced_is_refused(write: Any, exported: ExportedModel, tmp_path: Path) -> None:
    other = replace(exported, model=replace(exported.model, backbone=Deciding()))
    with pytest.raises(ExportError, match=r"torch.export cannot trace test_vit: .* Use --format timm"):
        write(tmp_path / "model.pt2", other)


CLASSES = ("hat", "shoe", "=bag")
THRESHOLDS = (0.0, 0.25, 1.0)


@pytest.fixture
def several(small_run: Path, tmp_path: Path) -> ExportedModel:
    run = of_several_labels(small_run, tmp_path / "run", CLASSES, THRESHOLDS)
    return ExportedModel(run_dir=run, model=load_run_model(run, None, CLASSES), classes=CLASSES)


@pytest.mark.parametrize("form", ["run", "timm", pytest.param("onnx", marks=pytest.mark.slow)])
def test_every_format_gives_the_sigmoid_of_the_outputs(several: ExportedModel, tmp_path: Path, form: str) -> None:
    path = several.run_dir if form == "run" else tmp_path / ("model.onnx" if form == "onnx" else "")
    if form != "run":
        (write_timm if form == "timm" else write_onnx)(path, several)
    side = several.metadata.preprocessing.size
    images = np.random.default_rng(0).random((4, 3, side, side), np.float32)
    with torch.inference_mode():
        outputs = several.model.backbone(several.metadata.preprocessing.normalised(torch.from_numpy(images)))
    classifier = load_classifier(path)
    assert classifier.task == MultiLabel(decision=Decision(thresholds=THRESHOLDS)) and classifier.classes == CLASSES
    assert classifier.probabilities(images) == pytest.approx(outputs.sigmoid().numpy(), abs=1e-5)


@pytest.mark.parametrize("form", ["timm", "onnx", "torch-export"])
def test_the_code_of_the_card_prints_the_classes_present(several: ExportedModel, form: str) -> None:
    asked = ExportConfig(run_dir=several.run_dir, format=form, out=Path("model"))  # pyright: ignore
    code = examples(several, asked)["example.py"]
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
