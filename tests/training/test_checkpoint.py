"""Checkpoints hold everything, are read without unpickling and refuse what is not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from gpt4image.artifacts import weights
from gpt4image.base.errors import RunError
from gpt4image.training.checkpoint import load_checkpoint, save_checkpoint


def trained(optimizer: str, steps: int, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    made: torch.optim.Optimizer = create_optimizer_v2(model, opt=optimizer, lr=0.001)  # type: ignore[assignment]
    for step in range(steps):
        advance(model, made, step)
    return model, made


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    torch.manual_seed(step)
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


# lamb and adan count their steps beside the parameters, Lookahead its own
@pytest.mark.parametrize("name", ["adamw", "sgd", "muon", "lamb", "adanw", "lookahead_adamw"])
def test_a_restored_run_goes_on_bitwise_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    model, optimizer = trained(name, 3)
    save_checkpoint(tmp_path / "c", {"model": model}, {"optimizer": optimizer}, {"step": 3, "loss": [0.1, 2 / 3]})
    fresh, fresh_optimizer = trained(name, 0, seed=1)
    assert load_checkpoint(tmp_path / "c", {"model": fresh}, {"optimizer": fresh_optimizer}) == {
        "step": 3,
        "loss": [0.1, 2 / 3],
    }
    for step in range(3, 6):
        advance(model, optimizer, step)
        advance(fresh, fresh_optimizer, step)
    for ours, theirs in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer = trained("adamw", 1)
    save_checkpoint(tmp_path / "c", {"model": model}, {"optimizer": optimizer}, {})
    other = nn.Linear(3, 3)
    with pytest.raises(RunError, match="belongs to another model"):
        load_checkpoint(tmp_path / "c", {"model": other}, {"optimizer": torch.optim.AdamW(other.parameters())})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
def test_a_full_disk_is_explained_and_what_was_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained("adamw", 1)
    save_checkpoint(tmp_path / "c", {"model": model}, {"optimizer": optimizer}, {"step": 1})

    def full(tensors: object, path: Path, metadata: object) -> None:
        Path("/dev/full").write_bytes(b"weights")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(RunError, match=r"No space left.*what was there is kept.*--resume"):
        save_checkpoint(tmp_path / "c", {"model": model}, {"optimizer": optimizer}, {"step": 2})
    assert load_checkpoint(tmp_path / "c", {"model": model}, {"optimizer": optimizer}) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
