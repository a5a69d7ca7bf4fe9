"""Models too large for a device: their structure, what they need, and a step of one. Shards: see test_processes.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from gpt4image.base.errors import ModelError
from gpt4image.models.backbones import create_backbone
from gpt4image.parallel.batch_layers import SharedBatchNorm, SharedDropPath, see_whole_batch
from gpt4image.parallel.sharding import blocks, shard, structure_alone, unshardable


def structure(name: str) -> nn.Module:
    with structure_alone():
        return create_backbone(name, classes=1000, image_size=224).module


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("vit_tiny_patch16_224", "Block", 12), ("convnext_atto", "ConvNeXtBlock", 12), ("resnet50", "Bottleneck", 16)],
)
def test_the_repeated_blocks_of_a_model_are_found_inner_ones_first(name: str, kind: str, count: int) -> None:
    found = blocks(structure(name))
    assert sum(type(block).__name__ == kind for block in found) == count
    for number, block in enumerate(found):
        assert not any(block in set(earlier.modules()) for earlier in found[:number]), "outer ones come later"


def test_one_process_alone_cannot_shard() -> None:
    assert "spreads weights over several processes" in unshardable("adamw")


def test_optimisers_that_need_whole_matrices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4image.parallel.processes.count", lambda: 2)
    assert unshardable("adamw") == ""
    assert "--optimizer muon, which may need whole matrices: give one of adam, adamw" in unshardable("muon")


def test_models_that_learn_single_numbers_are_refused() -> None:
    with structure_alone():
        model = nn.ModuleDict({"backbone": create_backbone("dm_nfnet_f0", classes=10, image_size=192).module})
    with pytest.raises(ModelError, match=r"--fsdp spreads tensors, and .* learns single numbers, '.*skipinit_gain'"):
        shard(model, torch.device("cpu"))


LAYERS: dict[str, Callable[[], Any]] = {
    "one dimension": lambda: nn.BatchNorm1d(5),
    "two dimensions": lambda: nn.BatchNorm2d(5),
    "three dimensions": lambda: nn.BatchNorm3d(5, momentum=0.3, eps=1e-2),
    "all batches alike": lambda: nn.BatchNorm2d(5, momentum=None),
    "no weights": lambda: nn.BatchNorm2d(5, affine=False),
    "no statistics": lambda: nn.BatchNorm2d(5, track_running_stats=False),
    "with activation": lambda: BatchNormAct2d(5),
}
DIMENSIONS = {"one dimension": 0, "three dimensions": 3}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_layer_that_it_replaces(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    if layer.affine:
        nn.init.normal_(layer.weight)
    shared = SharedBatchNorm(copy.deepcopy(layer))
    assert list(shared.state_dict()) == list(layer.state_dict())
    for mode in (True, True, False):
        layer.train(mode), shared.train(mode)
        x = 100 + torch.randn(6, 5, *[2] * DIMENSIONS.get(name, 2), dtype=torch.float64)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        expected, found = layer(inputs[0]), shared(inputs[1])
        torch.testing.assert_close(found, expected)
        weights = torch.randn_like(expected)
        for output in (expected, found):
            (output * weights).sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
        for ours, theirs in zip(shared.parameters(), layer.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(shared.state_dict(), layer.state_dict())


def test_it_computes_in_float32_under_autocast() -> None:
    x = 50 + torch.randn(64, 3, 8, 8)
    layer, shared = nn.BatchNorm2d(3), SharedBatchNorm(nn.BatchNorm2d(3))
    found = shared(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x.bfloat16().float()), atol=0.02, rtol=0.01)
    torch.testing.assert_close(shared.running_var, layer.running_var)


def test_a_model_of_one_process_stays_as_it_is() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    see_whole_batch(model, torch.device("cpu"), 8, torch.arange(8).numpy())
    assert type(model[0]) is nn.BatchNorm1d


@pytest.mark.parametrize("patches", [1, 3])
def test_stochastic_depth_drops_what_one_process_would(patches: int) -> None:
    x = torch.ones(8 * patches, 2, 5)
    torch.manual_seed(0)
    whole = SharedDropPath(DropPath(0.5), 8, np.arange(8))(x)
    torch.manual_seed(0)
    own = np.array([0, 3, 5])
    part = SharedDropPath(DropPath(0.5), 8, own)(x[: 3 * patches])
    assert torch.equal(part, whole.unflatten(0, (8, patches))[own].flatten(0, 1))
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    if patches == 1:
        torch.manual_seed(0)
        assert torch.equal(whole, DropPath(0.5)(x))
