"""FixMatch and SimCLR against loops that follow their papers word by word, and runs that learn by them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import gpt4image
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, RunError
from gpt4image.config import ReportConfig, TrainConfig
from gpt4image.models.weights import load_tensors
from gpt4image.reporting.report import report
from gpt4image.training.loop import validate
from gpt4image.training.objectives import consistency_loss, nt_xent
from gpt4image.training.train import train
from gpt4image.training.trainer import Trainer
from small_training import SMALL
from training.cases import losses_at, trainer_of

Array = NDArray[np.float64]


def by_the_paper(weak: Tensor, strong: Tensor, counts: list[bool], confidence: float) -> Tensor:
    terms = []
    for i in range(len(weak)):
        if not counts[i]:
            continue
        shares = [math.exp(value) for value in weak[i].tolist()]
        q = [share / sum(shares) for share in shares]
        best = max(range(len(q)), key=q.__getitem__)
        if q[best] >= confidence:
            terms.append(-(strong[i, best].exp() / strong[i].exp().sum()).log())
        else:
            terms.append(0 * strong[i].sum())
    return torch.stack(terms).mean() if terms else 0 * strong.sum()


@given(seed=st.integers(0, 1000), count=st.integers(0, 8), classes=st.integers(2, 5), confidence=st.floats(0.0, 1.0))
def test_values_and_gradients_are_those_of_the_paper(seed: int, count: int, classes: int, confidence: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weak = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    strong = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    counts = torch.rand(count, generator=generator) < 0.8
    ours, theirs = (strong.clone().requires_grad_() for _ in range(2))
    loss = consistency_loss(weak, ours, counts, confidence)
    expected = by_the_paper(weak, theirs, counts.tolist(), confidence)
    assert torch.allclose(loss, expected, atol=1e-12, rtol=0)
    loss.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12, rtol=0)


def projections(seed: int, count: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, two = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    return one, two


def simclr_by_the_paper(one: Array, two: Array, ids: list[int], temperature: float) -> float:
    rows = [*one, *two]
    images, count, terms = ids * 2, len(one), []
    for i, row in enumerate(rows):
        other = (i + count) % (2 * count)
        cosine = [float(row @ z / np.linalg.norm(row) / np.linalg.norm(z)) for z in rows]
        shown = [k for k in range(2 * count) if k == other or images[k] != images[i]]
        total = sum(math.exp(cosine[k] / temperature) for k in shown)
        terms.append(-math.log(math.exp(cosine[other] / temperature) / total))
    return float(np.mean(terms))


@given(seed=st.integers(0, 1000), count=st.integers(1, 6), width=st.integers(1, 5), temperature=st.floats(0.1, 1.0))
def test_simclr_is_that_of_the_paper(seed: int, count: int, width: int, temperature: float) -> None:
    one, two = projections(seed, count, width)
    ids = torch.randint(0, count, (count,), generator=torch.Generator().manual_seed(seed))
    expected = simclr_by_the_paper(one.numpy(), two.numpy(), ids.tolist(), temperature)
    assert float(nt_xent(one, two, ids, temperature)) == pytest.approx(expected, abs=1e-9)


@pytest.fixture
def few_labels(colour_folder: Path) -> dict[str, Any]:
    """Options of a run that learns by consistency on 48 pictures, 36 of them without a label."""
    (colour_folder / "unlabelled").mkdir()
    for name in ("red", "green", "blue"):
        for path in sorted((colour_folder / name).iterdir())[4:]:
            path.rename(colour_folder / "unlabelled" / f"{name}-{path.name}")
    own = {"epochs": 2, "consistency": 1.0, "confidence": 0.4, "val_fraction": 0.0, "test_fraction": 0.0}
    return {"data": f"folder:{colour_folder}", "out": Path("unused"), **SMALL, **own}


def losses(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in losses_at(trainer).items()}


def test_images_without_a_label_take_part_through_consistency_alone_where_it_is_confident(
    few_labels: dict[str, Any],
) -> None:
    trainer = trainer_of(few_labels, consistency=2.0, labelled_share=0.25, confidence=0.0)
    images = trainer.batches.batch(0)
    assert (trainer.data.labels[images] < 0).sum() == 6
    found = losses(trainer)
    assert found["consistency"] > 0
    assert found["total"] == pytest.approx(found["task"] + 2 * found["consistency"])
    assert losses(trainer_of(few_labels, confidence=1.0, label_smoothing=0.0))["consistency"] == 0
    assert losses(trainer_of(few_labels, confidence=1.0, label_smoothing=0.99))["consistency"] > 0


def test_the_weak_view_is_only_moved_whatever_labelled_images_are_trained_with(few_labels: dict[str, Any]) -> None:
    plain = trainer_of(few_labels)
    busy = trainer_of(few_labels, mixup=0.8, colour=0.5, erase=1.0, auto_augment="rand-m9-p1")
    seen: list[torch.Tensor] = []
    for trainer in (plain, busy):
        hook = trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        losses(trainer)
        hook.remove()
    without = torch.from_numpy(plain.data.labels[plain.batches.batch(0)] < 0)
    assert torch.equal(seen[0][:8][without], seen[1][:8][without])
    assert not torch.equal(seen[0][:8][~without], seen[1][:8][~without])


def asked(worded: dict[str, Any], objectives: str, **changes: Any) -> dict[str, Any]:
    own = {} if "captions" in objectives else {"embeddings": None}
    return worded | {"task": "pretrain", "pretrain": objectives, "epochs": 2} | own | changes


@pytest.mark.parametrize("objectives", ["simclr", "captions", "simclr,captions"])
def test_the_loss_is_that_of_the_objectives_alone_and_of_held_out_images_the_same_each_time(
    objectives: str, worded: dict[str, Any]
) -> None:
    trainer = trainer_of(asked(worded, objectives))
    found = losses(trainer)
    names = {"captions": "align"}
    own = [found.pop(names.get(name, name)) for name in objectives.split(",")]
    assert all(value > 0 for value in own)
    assert found.pop("total") == pytest.approx(sum(own))
    assert found == {"task": 0}
    held_out = validate(trainer)
    assert held_out["pretraining_loss"] == held_out["loss"] > 0
    torch.rand(7)
    assert validate(trainer) == held_out


def test_two_views_of_all_images_are_seen_and_they_differ(worded: dict[str, Any]) -> None:
    trainer = trainer_of(asked(worded, "simclr"))
    assert (trainer.config.min_scale, trainer.config.colour, trainer.augmentation.grey) == (0.2, 0.4, 0.2)
    seen: list[torch.Tensor] = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    losses(trainer)
    first, second = seen[0].chunk(2)
    assert len(first) == trainer.config.batch_size
    assert all(not torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert trainer_of(asked(worded, "captions")).augmentation.grey == 0.0
    given = trainer_of(asked(worded, "simclr", min_scale=0.9, colour=0.0)).config
    assert (given.min_scale, given.colour) == (0.9, 0.0)


def test_pretrained_weights_are_tuned_or_probed_and_predict_nothing_alone(
    worded: dict[str, Any], tmp_path: Path
) -> None:
    pretrained = tmp_path / "pretrained"
    train(TrainConfig(**asked(worded, "simclr,captions", out=pretrained)))
    init = str(pretrained / runs.MODEL)
    named = {"model": None, "model_args": {}, "image_size": None}  # the weights say which
    fresh = worded | {"embeddings": None, "epochs": 1, "optimizer": "adamw", "lr": 0.01}
    train(TrainConfig(**fresh | named | {"out": tmp_path / "tuned", "init": init}))
    train(TrainConfig(**fresh | named | {"out": tmp_path / "probe", "init": init, "freeze": "all"}))
    first = {name: runs.read_run(tmp_path / name)["metrics"][0]["loss"] for name in ("tuned", "probe")}
    assert len(set(first.values())) == 2
    given, probe, tuned = (
        load_tensors(path / runs.MODEL)[0] for path in (pretrained, tmp_path / "probe", tmp_path / "tuned")
    )
    classifier = {"fc.weight", "fc.bias"}
    assert {name for name in given if name not in classifier and not torch.equal(given[name], probe[name])} == set()
    assert not torch.equal(given["conv1.0.weight"], tuned["conv1.0.weight"])
    assert probe["fc.weight"].shape[0] == 3 and probe["fc.weight"].any()
    (pretrained / "any.png").touch()
    for stage in (
        lambda: gpt4image.evaluate(run_dir=pretrained),
        lambda: gpt4image.export(run_dir=pretrained, format="timm", out=pretrained.with_name("timm")),
        lambda: gpt4image.predict(model=pretrained, images=pretrained / "any.png"),
    ):
        with pytest.raises(RunError, match=r"pretrain, so it predicts nothing. Fine-tune .* --init .*--freeze"):
            stage()
    page = report(ReportConfig(dir=pretrained)).path
    text = page.read_text(encoding="utf-8")
    assert "learned without labels: its loss on the validation pictures ended at" in text
    assert "SimCLR" in text and "alignment" in text and "%</text>" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain": "simclr,colours"}, "'colours' is not known|colours"),
        ({"pretrain": ""}, "name at least one of simclr"),
        ({"pretrain": "captions"}, "learns from descriptions: give their --embeddings"),
        ({"pretrain": "simclr", "embeddings": Path("t")}, "embeddings is not read by --pretrain"),
        ({"mixup": 0.2, "consistency": 1.0}, "consistency is not used by --task pretrain"),
        ({"targets": Path("t.parquet")}, "targets is not used"),
        ({"freeze": "all", "init": "pretrained"}, "freeze is not used"),
        ({"task": "auto", "freeze": "all"}, "freeze = all keeps weights as they are: name them by --init"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{"data": "x", "out": tmp_path, "task": "pretrain", **changes})
