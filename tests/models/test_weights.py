"""Tensors on disk keep their values, are replaced whole and read without unpickling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt4image.base.errors import ModelError
from gpt4image.models.weights import load_tensors, save_tensors


def test_tied_weights_and_channels_last_survive(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    save_tensors(tmp_path / "t.safetensors", {"a": weight, "b": weight}, {"note": "é"})
    tensors, state = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["a"], weight) and torch.equal(tensors["b"], weight)
    assert state == {"note": "é"}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, {"step": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_tensors(path, {"a": torch.zeros(2)}, {"step": object()})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(ModelError, match=r"no safetensors file.*never loaded"):
        load_tensors(path)
    with pytest.raises(ModelError, match="does not exist"):
        load_tensors(tmp_path / "missing.safetensors")
