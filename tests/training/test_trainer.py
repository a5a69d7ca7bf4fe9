"""The parts of a run, built from its options."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import gpt4image
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import TrainConfig
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.segmentation import Segmentation
from gpt4image.training.prepare import check, prepare
from gpt4image.training.train import block, train
from gpt4image.training.trainer import Trainer, idle_options
from small_training import SMALL, options
from training.cases import trainer_of
from worlds import coco, write_coco


def test_arms_that_differ_in_the_text_start_from_the_same_weights(described: dict[str, Any]) -> None:
    aligned, plain, other = (
        trainer_of(described, **changes) for changes in ({}, {"align_weight": 0.0}, {"align_weight": 0.0, "seed": 1})
    )
    assert not isinstance(plain.model, Aligner) and plain.objectives == ()
    assert [objective.name for objective in aligned.objectives] == ["align"]
    own = plain.model.backbone.state_dict()
    backbone: Any = aligned.model.backbone
    assert all(torch.equal(value, own[name]) for name, value in backbone.state_dict().items())
    assert not all(torch.equal(value, own[name]) for name, value in other.model.backbone.state_dict().items())


def test_what_a_task_does_not_allow_is_refused(colour_folder: Path) -> None:
    task = MultiLabel()
    check(prepare(options(colour_folder, Path("unused"), mixup=0.2)).config.resolved, task)
    policy = prepare(options(colour_folder, Path("unused"), auto_augment="rand-m9-mstd0.5-inc1")).config.resolved
    check(policy, task)
    for dense in (Detection(), Segmentation()):
        with pytest.raises(ConfigError, match=f"the {dense.output} of --task {dense.name} would stay"):
            check(policy, dense)
    consistent = prepare(options(colour_folder, Path("unused"), consistency=1.0)).config.resolved
    with pytest.raises(ConfigError, match="task multilabel has no such one"):
        check(consistent, task)
    others = [("frames", 3), ("frame_order", "still"), ("frame_differences", True)]
    for name, value in (*others, ("presence_weight", 0.0), ("pretrain", "captions")):
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: not for --task classification"):
            prepare(options(colour_folder, Path("unused"), **{name: value}))


def told(data: str, out: Path, **options: Any) -> tuple[str, ...]:
    ready = prepare(TrainConfig(data=data, out=out, **{**SMALL, **options}))
    return idle_options(ready.config, ready.data)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head": "mlp", "temperature": 0.5}, "--head, --temperature: no effect, since no features are aligned"),
        ({"task": "pretrain", "temperature": 0.5, "head": "mlp"}, "--head: no effect, since no features are aligned"),
        ({"shift": 0.2, "min_scale": 0.5}, "--shift: no effect, since crops of --min-scale take its place."),
        ({"new_layers_lr_scale": 3.0}, "--new-layers-lr-scale: no effect, since --init scratch has only new layers."),
        ({"erase_with": "noise"}, "--erase-with: no effect, since no pixels are erased (--erase)."),
        ({"confidence": 0.5}, "--confidence: no effect, since there is no --consistency."),
        ({"labelled_share": 0.3}, "--labelled-share: no effect, since all training images have a target."),
    ],
)
def test_an_option_without_effect_is_named(
    options: dict[str, Any], expected: str, colour_folder: Path, tmp_path: Path
) -> None:
    (line,) = told(f"folder:{colour_folder}", tmp_path / "run", **options)
    assert line.startswith(expected)


def of_parameters(trainer: Trainer, option: str) -> dict[str, float]:
    """Return an option of the optimiser's groups by the names of parameters."""
    groups = trainer.optimizer.param_groups
    found = {id(parameter): group[option] for group in groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in trainer.model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"align_weight": 0.0}], ids=["aligned", "plain"])
def test_weight_decay_spares_what_the_backbone_says(
    changes: dict[str, Any], optimizer: str, described: dict[str, Any]
) -> None:
    vit = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
    trainer = trainer_of(described, **vit, optimizer=optimizer, weight_decay=0.1, **changes)
    found = of_parameters(trainer, "weight_decay")
    spared = {name.removeprefix("backbone.") for name, value in found.items() if not value}
    backbone = trainer.model.backbone
    assert {"pos_embed", "cls_token"} == set(backbone.no_weight_decay()) & spared
    assert found["backbone.blocks.0.attn.qkv.weight"] == 0.1 and "blocks.0.attn.qkv.bias" in spared


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"align_weight": 0.0}], ids=["aligned", "plain"])
def test_layers_that_start_anew_learn_faster_than_given_weights(
    changes: dict[str, Any], optimizer: str, described: dict[str, Any], tmp_path: Path
) -> None:
    start = create_backbone(SMALL["model"], classes=7, image_size=16, stem="small", model_args=SMALL["model_args"])
    save_file(start.module.state_dict(), tmp_path / "start.safetensors")
    given = {"init": str(tmp_path / "start.safetensors"), "optimizer": optimizer, "lr": 0.02, "min_lr": 0.01}
    trainer = trainer_of(described, **given, new_layers_lr_scale=5.0, **changes)
    new = {name for name, _ in trainer.model.named_parameters() if not name.startswith("backbone.")}
    assert bool(new) == (not changes)
    new |= {"backbone.fc.weight", "backbone.fc.bias"}
    for step, rate in ((trainer.steps // 20, 0.02), (trainer.steps, 0.01)):
        trainer.scheduler.step_update(step)
        rates = of_parameters(trainer, "lr")
        assert rates == pytest.approx({name: rate * (5.0 if name in new else 1.0) for name in rates}, rel=0.01)
    scratch = trainer_of(described, optimizer=optimizer, new_layers_lr_scale=5.0, **changes)
    assert all("lr_scale" not in group for group in scratch.optimizer.param_groups)


def test_sets_with_nothing_to_learn_are_refused_before_they_are_decoded(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4image.training.prepare.load_pixels", None)  # to call it would be another error
    for name in ("clips", "above", "boxes"):
        (tmp_path / name).mkdir()
    (tmp_path / "clips" / "1.mp4").write_bytes(b"not read")
    outside = coco({"image_id": 1, "category_id": 9, "bbox": [1, 1, 9, 9]}, images=4)
    none = "No training image has a label or a text label"
    colour_folder = colour_folder.rename(tmp_path / "above" / "colours")
    for data, said in (
        (f"folder:{tmp_path / 'above'}", "has one class, 'colours': there is nothing to tell apart"),
        (f"coco:{write_coco(tmp_path / 'boxes', outside)}", r"no box at all.* 1 annotation: its category is not"),
        (f"folder:{colour_folder / 'red'}", none),
        (f"clips:{tmp_path / 'clips'}", none),
    ):
        with pytest.raises(DataError, match=said):
            train(options(tmp_path, tmp_path / "run", data=data, model="resnet18", model_args={}))
        if said == none:
            with pytest.raises(DataError, match=said):
                gpt4image.compare(data=data, out=tmp_path / "cmp", model="resnet18", seeds=1)
    assert not (tmp_path / "run").exists()


def test_few_labels_and_pretrained_weights_that_all_learn_are_advised_to_freeze(colour_folder: Path) -> None:
    def advised(**changes: Any) -> bool:
        ready = prepare(options(colour_folder, Path("unused"), val_fraction=0.0))
        told = block(replace(ready, config=ready.config.model_copy(update={"init": "pretrained", **changes})))
        return "all weights learn from 12 images; with so few, --freeze all is far better." in told

    assert not advised(), "38 learn"
    for folder in colour_folder.iterdir():
        for path in sorted(folder.iterdir())[5:]:
            path.unlink()
    assert advised() and not advised(freeze="all") and not advised(init="scratch")
