"""Activations computed again give the same gradient; what a compiler lacks is named."""

from __future__ import annotations

import pytest
import torch

from gpt4image.base.errors import ModelError
from gpt4image.models.backbones import create_backbone
from gpt4image.models.compiling import checkpoint_activations, compiler_missing


def test_checkpointed_activations_give_the_same_gradient():
    torch.manual_seed(0)
    model = create_backbone("vit_tiny_patch16_224", classes=3, image_size=32, model_args={"depth": 2}).module
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            checkpoint_activations(model, "vit_tiny_patch16_224")
        model(torch.ones(2, 3, 32, 32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad(set_to_none=True)
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet18", "resnet18 has batch norm, which would count each batch twice"), ("pit_ti_224", "timm has none for")],
)
def test_models_that_cannot_checkpoint_activations_say_so(name, message):
    with torch.device("meta"):
        module = create_backbone(name, classes=3, image_size=224).module
    with pytest.raises(ModelError, match=message):
        checkpoint_activations(module, name)


def test_triton_needs_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    monkeypatch.setattr("shutil.which", lambda name: name if name == "clang" else None)
    assert compiler_missing(torch.device("cuda")) == ""
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert "no C compiler" in compiler_missing(torch.device("cuda"))
    assert "no C++ compiler" in compiler_missing(torch.device("cpu"))
