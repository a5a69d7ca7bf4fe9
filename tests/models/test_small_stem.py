"""The small stem of ResNets: a model of timm's registry, in a file that needs timm and torch alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from gpt4image.base.files import write_json
from gpt4image.models import small_stem
from gpt4image.models.backbones import create_backbone, in_timm

CASES: dict[str, dict[str, Any]] = {
    "plain": {"name": "resnet18", "image_size": 32},
    "plain, stride 2": {"name": "resnet18", "image_size": 64},
    "deep": {"name": "resnet10t", "image_size": 32, "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}},
    "another family": {"name": "skresnet18", "image_size": 32},
}


def images(size: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


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
    torch.testing.assert_close(
        loaded(images(CASES[case]["image_size"])), module(images(CASES[case]["image_size"])), rtol=0, atol=0
    )
    assert loaded.pretrained_cfg["architecture"] == small_stem.NAME


def test_other_classes_and_channels_are_what_timm_makes_of_them(tmp_path: Path) -> None:
    module = write_folder(tmp_path / "model", CASES["plain"])
    name = f"local-dir:{tmp_path / 'model'}"
    tuned = timm.create_model(name, pretrained=True, num_classes=7, in_chans=1).eval()
    assert tuned(images(32, channels=1)).shape == (2, 7)
    torch.testing.assert_close(
        tuned.get_parameter("layer1.0.conv1.weight"), module.get_parameter("layer1.0.conv1.weight")
    )
    untrained = timm.create_model(name, pretrained=False)
    assert not torch.equal(untrained.get_parameter("conv1.weight"), module.get_parameter("conv1.weight"))


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
