"""Models too large for a device: their structure, what they need, and a step of one. Shards: see test_processes.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gpt4image.base.errors import ModelError
from gpt4image.models.backbones import create_backbone
from gpt4image.parallel.sharding import blocks, clip_gradients, shard, structure_alone, unshardable


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


def test_gradients_are_cut_to_a_norm() -> None:
    layer = nn.Linear(3, 1)
    layer(torch.ones(1, 3)).sum().mul(100).backward()
    clip_gradients(layer, 0.5)
    grads = [p.grad.flatten() for p in layer.parameters() if p.grad is not None]
    assert float(torch.cat(grads).norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.slow
def test_a_vit_large_takes_a_step_on_a_cpu() -> None:
    model = create_backbone("vit_large_patch16_224", classes=3, image_size=32).module
    model.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
