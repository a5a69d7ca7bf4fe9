"""The loop: steps, checkpoints on the way, and losses that are not finite."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from gpt4image.artifacts import runs
from gpt4image.base.errors import RunError, TrainingError
from gpt4image.config import TrainConfig
from gpt4image.models import weights
from gpt4image.models.weights import load_tensors
from gpt4image.training import loop
from gpt4image.training.loop import load_checkpoint, save_checkpoint
from gpt4image.training.train import train
from small_training import StoppedError, options, resumed, same, stop_after
from training.cases import losses_at, trainer_of


def test_what_fails_after_the_last_step_costs_no_step(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fails(*_: Any) -> None:
        raise StoppedError

    changes: dict[str, Any] = {"epochs": 2, "select": "best", "checkpoint_seconds": 0.0}
    monkeypatch.setattr(runs, "finish", fails)
    with pytest.raises(StoppedError):
        train(options(colour_folder, tmp_path / "run", **changes))
    monkeypatch.undo()
    stop_after(monkeypatch, 0)
    train(options(colour_folder, tmp_path / "run", **changes, resume=True))
    monkeypatch.undo()
    train(options(colour_folder, tmp_path / "whole", **changes))
    assert same(tmp_path / "whole", tmp_path / "run")
    assert not [*(tmp_path / "run").glob("*best*"), *(tmp_path / "run").glob(runs.CHECKPOINT)]


def test_a_loss_that_is_not_finite_stops_before_the_step(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt4image.tasks import classification

    real = classification.soft_cross_entropy
    calls = [0]

    def poisoned(*arguments: Any) -> torch.Tensor:
        calls[0] += 1
        return real(*arguments) * (float("nan") if calls[0] == 7 else 1.0)

    monkeypatch.setattr(classification, "soft_cross_entropy", poisoned)
    with pytest.raises(TrainingError, match=r"not finite at step 6 \(epoch 2\): total nan, task nan"):
        train(options(colour_folder, tmp_path / "run", checkpoint_seconds=0.0))
    tensors, _ = load_tensors(tmp_path / "run" / runs.CHECKPOINT)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize(("again", "kept"), [((0.1, 0.15), 1), ((0.25, 0.1), 2)])
def test_best_weights_are_those_of_the_epochs_that_the_curve_holds(
    again: tuple[float, float], kept: int, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 0.9, *again])  # the second epoch is lost after its weights were written; it is trained again
    monkeypatch.setattr(loop, "validate", lambda _: {"top1": next(values), "loss": 1.0})
    weights: dict[float, Any] = {}
    real = loop.end_epoch

    def killed(trainer: Any, *rest: Any) -> Any:
        row = real(trainer, *rest)
        weights[row["val"]["top1"]] = {k: v.clone() for k, v in trainer.evaluated.backbone.state_dict().items()}
        if row["val"]["top1"] == 0.9:
            raise RuntimeError("killed")
        return row

    monkeypatch.setattr(loop, "end_epoch", killed)
    config = options(colour_folder, tmp_path / "run", epochs=3, select="best", checkpoint_seconds=0.0)
    with pytest.raises(RuntimeError, match="killed"):
        train(config)
    train(config.model_copy(update={"resume": True}))
    curve = [row["val"]["top1"] for row in runs.read_run(tmp_path / "run")["metrics"]]
    assert curve == [0.2, *again]
    found, _ = load_tensors(tmp_path / "run" / runs.MODEL)
    best = {name: value for name, value in weights[curve[kept - 1]].items() if not name.startswith("fc.")}
    assert all(torch.equal(found[name], value) for name, value in best.items()), "the last layer has a temperature too"
    assert not list((tmp_path / "run").glob("*best*"))


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
    save_checkpoint(tmp_path / "c", {"model": model}, optimizer, {"step": 3, "loss": [0.1, 2 / 3]})
    fresh, fresh_optimizer = trained(name, 0, seed=1)
    assert load_checkpoint(tmp_path / "c", {"model": fresh}, fresh_optimizer) == {"step": 3, "loss": [0.1, 2 / 3]}
    for step in range(3, 6):
        advance(model, optimizer, step)
        advance(fresh, fresh_optimizer, step)
    for ours, theirs in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer = trained("adamw", 1)
    save_checkpoint(tmp_path / "c", {"model": model}, optimizer, {})
    other = nn.Linear(3, 3)
    with pytest.raises(RunError, match="belongs to another model"):
        load_checkpoint(tmp_path / "c", {"model": other}, torch.optim.AdamW(other.parameters()))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
def test_a_full_disk_is_explained_and_what_was_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained("adamw", 1)
    save_checkpoint(tmp_path / "c", {"model": model}, optimizer, {"step": 1})

    def full(tensors: object, path: Path, metadata: object) -> None:
        Path("/dev/full").write_bytes(b"weights")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(RunError, match=r"No space left.*what was there is kept.*--resume"):
        save_checkpoint(tmp_path / "c", {"model": model}, optimizer, {"step": 2})
    assert load_checkpoint(tmp_path / "c", {"model": model}, optimizer) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


VIT = {"model": "vit_tiny_patch16_224", "model_args": {"embed_dim": 16, "depth": 1, "num_heads": 2}}
RESUMED: dict[str, tuple[str, dict[str, Any]]] = {
    "mixed": ("described", {
        "mixup": 0.8, "cutmix": 1.0, "ema": 0.9, "optimizer": "sgd", "lr": 0.05, "grad_accumulation": 2, "colour": 0.3,
        "min_scale": 0.5, "erase": 0.3, "select": "best", "align_loss": "siglip", "head": "mlp-bn"}),
    "policy of the paper": ("described", {
        **VIT, "drop_path": 0.1, "auto_augment": "rand-m9-mstd0.5-inc1", "repeated_augmentation": 3, "erase": 0.5,
        "erase_with": "noise", "epochs": 2, "paper_compat": True, "mixup": 0.8, "head": "mlp"}),
    "consistent, in bf16, by workers": ("described", {
        "consistency": 1.0, "confidence": 0.4, "precision": "bf16", "min_scale": 0.5, "memory_limit_gb": 0.0,
        "workers": 1, "epochs": 2, "mixup": 0.8, "cutmix": 1.0, "labelled_share": 0.25}),
    "pretrained": ("worded", {
        "task": "pretrain", "pretrain": "simclr,captions", "ema": 0.5, "auto_augment": "rand-m9-mstd0.5-inc1",
        "epochs": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", RESUMED)
def test_a_run_that_stopped_mid_epoch_ends_with_the_same_bits(
    case: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture, changes = RESUMED[case]
    config = TrainConfig(**{**request.getfixturevalue(fixture), **changes, "out": tmp_path / "whole"})
    outcome = train(config)
    resumed(config, tmp_path / "broken", steps=5)
    assert same(tmp_path / "whole", tmp_path / "broken")
    rows, again = ([{**row, "seconds": 0} for row in runs.read_run(tmp_path / name)["metrics"]]
                   for name in ("whole", "broken"))  # fmt: skip
    assert rows == again and all(np.isfinite(row["loss"]) for row in rows)
    assert "consistency" not in changes or all(row["consistency_loss"] >= 0 for row in rows)
    if config.pretraining:
        assert outcome.labelled == 0 and outcome.val["pretraining_loss"] > 0
        assert not any("heads" in name for name in load_tensors(tmp_path / "whole" / runs.MODEL)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_a_compiled_model_has_the_losses_of_another(described: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # in seconds
    plain, compiled = (trainer_of(described, compile=chosen, **VIT) for chosen in (False, True))
    first, second = losses_at(plain), losses_at(compiled)
    torch.testing.assert_close(second["total"], first["total"], rtol=1e-4, atol=1e-5)
    for losses in (first, second):
        losses["total"].backward()
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4)
