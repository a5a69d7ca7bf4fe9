"""Layers that see the batch of all processes, and who speaks. Steps of several processes: see test_processes.py."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from gpt4image.cli import main
from gpt4image.parallel import launch
from gpt4image.parallel.batch_layers import SharedBatchNorm, SharedDropPath

LAYERS: dict[str, Callable[[], Any]] = {
    "one dimension": lambda: nn.BatchNorm1d(5),
    "all batches alike": lambda: nn.BatchNorm2d(5, momentum=None),
    "no statistics": lambda: nn.BatchNorm2d(5, track_running_stats=False),
    "with activation": lambda: BatchNormAct2d(5),
}


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
        x = 100 + torch.randn(6, 5, *[2] * (0 if name == "one dimension" else 2), dtype=torch.float64)
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


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_only_the_first_process_speaks(second_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (launch.count(), launch.rank(), launch.local_rank(), launch.local_count()) == (2, 1, 1, 2)
    with launch.only_first_speaks():
        print("second")
        print("second", file=sys.stderr)
    second_of_two.setenv("RANK", "0")
    with launch.only_first_speaks():
        print("first")
    assert capsys.readouterr() == ("first\n", "")


@pytest.mark.parametrize("words", [["compare", "--data", "openmoji", "--out", "x"], ["inspect"]])
def test_commands_that_run_in_one_process_are_refused_once(
    words: list[str], second_of_two: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", "")
    second_of_two.setenv("RANK", "0")
    assert main(words) == 2
    assert "was started in 2 processes" in (said := capsys.readouterr().err)
    assert "Processes can share train and evaluate." in said
