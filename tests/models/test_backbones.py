"""Backbones of every common family, their stems and weights."""

import ast
import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import sklearn
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from gpt4image.base.errors import ModelError
from gpt4image.base.files import write_json
from gpt4image.models import backbones, small_stem
from gpt4image.models.backbones import (
    classifier_names,
    create_backbone,
    in_timm,
    load_own_layers,
    load_weights,
    pretrained_weights,
)
from gpt4image.models.detector import Detector
from gpt4image.models.pyramid import Segmenter
from gpt4image.models.weights import load_tensors, save_tensors
from models.small_models import CLASSES, images, small_resnet

DAISY = 985  # of ImageNet
FLOWER = Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg"


class TestCreateBackbone:
    @pytest.mark.parametrize(
        ("name", "image_size", "stem"),
        [
            ("resnet18", 32, "small"),
            ("convnext_atto_ols", 32, "small"),
            ("deit_tiny_patch16_224", 28, "small"),
            ("mobilenetv3_small_050", 64, "standard"),
        ],
    )
    def test_gives_logits_for_images_of_that_size(self, name, image_size, stem):
        module, notes, new_layers = create_backbone(name, classes=CLASSES, image_size=image_size, stem=stem)
        assert module.training
        assert module.eval()(images(image_size)).shape == (2, CLASSES)
        assert notes == new_layers == ()

    @pytest.mark.parametrize("name", ["resnet26d", "convnext_atto"])
    def test_a_small_stem_keeps_the_resolution(self, name):
        small = create_backbone(name, classes=CLASSES, image_size=32, stem="small").module
        standard = create_backbone(name, classes=CLASSES, image_size=32).module
        assert standard.forward_features(images()).shape[2:] == (1, 1)
        if "convnext" in name:
            assert small.stem(images()).shape[2:] == (16, 16)
        else:
            assert small.forward_features(images()).shape[2:] == (4, 4)

    def test_an_image_size_that_does_not_fit_is_known_at_once(self):
        with pytest.raises(ModelError, match="inception_v3 cannot take images of 32 x 32"):
            create_backbone("inception_v3", classes=CLASSES, image_size=32)

    def test_layers_that_pretrained_weights_do_not_fill_are_named(self, monkeypatch):
        real = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **args: real(name, **args))
        start = {"image_size": 32, "init": "pretrained"}
        assert create_backbone("resnet18", classes=1000, **start).new_layers == ()
        assert create_backbone("resnet18", classes=CLASSES, **start).new_layers == ("fc",)
        small = create_backbone("resnet18", classes=CLASSES, stem="small", **start)
        assert small.new_layers == ("conv1", "fc") and "conv1 of the small stem" in small.notes[0]


class TestLoadWeights:
    @pytest.mark.parametrize("name", ["test_resnet", "test_vit", "deit_tiny_distilled_patch16_224"])
    def test_classifier_with_other_classes_stays_new_and_is_reported(self, name, tmp_path):
        file = tmp_path / "model.safetensors"
        weights = create_backbone(name, classes=3, image_size=32, stem="small").module.state_dict()
        save_file(weights, file)
        module, notes, new_layers = create_backbone(name, classes=CLASSES, image_size=32, stem="small", init=str(file))
        assert len(notes) == 1
        assert "classifier has other classes" in notes[0]
        assert new_layers == classifier_names(module)
        body = {key: value for key, value in module.state_dict().items() if value.shape == weights[key].shape}
        assert len(weights) - len(body) in (2, 4)
        for key, value in body.items():
            torch.testing.assert_close(value, weights[key], rtol=0, atol=0)

    def test_real_weights_of_imagenet_know_a_daisy_and_lend_their_body_to_other_classes(self, tmp_path, monkeypatch):
        benchmarks = Path(__file__).parents[2] / "benchmarks"
        monkeypatch.syspath_prepend(str(benchmarks))
        tool = runpy.run_path(str(benchmarks / "pretrained_weights.py"))
        file = str(tmp_path / "lite0.safetensors")
        tool["write"](file)
        whole = create_backbone(tool["MODEL"], classes=1000, image_size=224, init=file)
        assert whole.notes == whole.new_layers == ()
        see = timm.data.create_transform(**timm.data.resolve_data_config({}, model=whole.module))
        with torch.no_grad():
            assert whole.module.eval()(see(Image.open(FLOWER))[None]).argmax().item() == DAISY
        part = create_backbone(tool["MODEL"], classes=CLASSES, image_size=96, init=file)
        assert "classifier has other classes" in part.notes[0] and part.new_layers == ("classifier",)
        named = create_backbone(tool["MODEL"], classes=CLASSES, image_size=96, init="pretrained")
        assert named.notes == () and named.new_layers == ("classifier",) and pretrained_weights(tool["MODEL"]) == "here"
        for own in (part, named):
            torch.testing.assert_close(own.module.conv_head.weight, whole.module.conv_head.weight, rtol=0, atol=0)
            torch.testing.assert_close(own.module.bn2.running_var, whole.module.bn2.running_var, rtol=0, atol=0)

    def test_a_damaged_package_of_weights_is_named_and_runs_no_code(self, tmp_path, monkeypatch):
        file = tmp_path / "weights.pth"
        monkeypatch.setattr(backbones, "weights_package", lambda _name: file)
        for content in ({"of": Path()}, {"of": torch.ones(2)}):
            torch.save(content, file)
            with pytest.raises(ModelError, match=r"weights.pth does not hold weights of tf_efficientnet_lite0"):
                create_backbone("tf_efficientnet_lite0", classes=CLASSES, image_size=96, init="pretrained")

    @pytest.mark.parametrize("kind", [Detector, Segmenter])
    def test_of_a_model_with_layers_of_its_own_all_that_fits_is_read(self, kind, tmp_path):
        def dense(classes):
            plain = create_backbone("test_resnet", classes=classes, image_size=64, stem="small").module
            return Detector(plain, 64, classes) if kind is Detector else Segmenter(plain, 64)

        given, file = dense(CLASSES), tmp_path / "model.safetensors"
        save_file(given.state_dict(), file)
        same, other = dense(CLASSES), dense(CLASSES + 1)
        assert load_weights(same.backbone, file) == () == load_own_layers(same, file)
        new = (*load_own_layers(other, file), *(f"backbone.{name}" for name in load_weights(other.backbone, file)))
        of_classes = "head.classification_head.cls_logits" if kind is Detector else "of_cells"
        assert new == (of_classes, *(f"backbone.{name}" for name in classifier_names(other.backbone)))
        for name, tensor in given.state_dict().items():
            assert torch.equal(same.state_dict()[name], tensor), name
            assert name.startswith(new) or torch.equal(other.state_dict()[name], tensor), name

    def test_other_tensors_must_fit(self, tmp_path):
        module = small_resnet()
        weights = module.state_dict()
        weights["conv1.0.weight"] = torch.zeros(1, 2, 3, 3)
        weights["extra.weight"] = weights.pop("bn1.weight")
        save_file(weights, tmp_path / "model.safetensors")
        with pytest.raises(ModelError) as error:
            load_weights(module, tmp_path / "model.safetensors")
        assert all(part in str(error.value) for part in ("bn1.weight", "extra.weight", "conv1.0.weight"))

    @pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
    def test_a_pickle_is_refused_and_not_run(self, name, tmp_path):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        with pytest.raises(ModelError, match="safetensors"):
            load_weights(small_resnet(), tmp_path / name)
        assert not (tmp_path / "exploded").exists()


class Bomb:
    """Makes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


CASES: dict[str, dict[str, Any]] = {
    "plain": {"name": "resnet18", "image_size": 32},
    "plain, stride 2": {"name": "resnet18", "image_size": 64},
    "deep": {"name": "resnet10t", "image_size": 32, "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}},
    "another family": {"name": "skresnet18", "image_size": 32},
}


def write_folder(path: Path, case: dict[str, Any]) -> torch.nn.Module:
    """Write a model as a folder of timm, and return it."""
    module: Any = create_backbone(**case, classes=5, stem="small").module.eval()
    architecture, args = in_timm(**case, stem="small")
    path.mkdir()
    kept = {key: module.pretrained_cfg[key] for key in ("first_conv", "classifier")}
    size = [3, case["image_size"], case["image_size"]]
    config = {"architecture": architecture, "num_classes": 5, "model_args": args}
    write_json(path / "config.json", {**config, "pretrained_cfg": {**kept, "input_size": size}})
    save_file(module.state_dict(), path / "model.safetensors")
    return module


@pytest.mark.parametrize("case", CASES)
def test_a_folder_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    module = write_folder(tmp_path / "model", CASES[case])
    loaded: Any = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    batch = images(CASES[case]["image_size"])
    torch.testing.assert_close(loaded(batch), module(batch), rtol=0, atol=0)
    assert loaded.pretrained_cfg["architecture"] == small_stem.NAME


def test_the_file_needs_timm_and_torch_alone() -> None:
    tree = ast.parse(Path(small_stem.__file__).read_text(encoding="utf-8"))
    names = {
        module.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names])
    }
    assert names - set(sys.stdlib_module_names) == {"timm", "torch"}


@pytest.mark.parametrize("base", ["local-dir:other", "hf-hub:me/model", "resnet18.x", "", None, 3])
def test_the_base_is_a_plain_name(base: Any) -> None:
    with pytest.raises(ValueError, match="base must be the name of a ResNet of timm"):
        small_stem.small_stem_resnet(base=base, stride=1)


def test_tied_weights_and_channels_last_survive(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    save_tensors(tmp_path / "t.safetensors", {"a": weight, "b": weight}, {"note": "é"})
    tensors, state = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["a"], weight) and torch.equal(tensors["b"], weight)
    assert state == {"note": "é"}
