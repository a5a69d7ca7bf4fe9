"""Options chosen from the set: what the user gave is kept, what is chosen is named, the rules are monotone."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from PIL import Image

from gpt4image.base.files import write_json
from gpt4image.config import TrainConfig
from gpt4image.data import load_with_splits
from gpt4image.models import backbones
from gpt4image.parallel.devices import suited_precision
from gpt4image.training import auto
from models.small_models import in_hub_cache


def choose(folder: Path, **given: object) -> tuple[TrainConfig, dict[str, object]]:
    config = TrainConfig(data=f"folder:{folder}", out=folder / "run", **given)  # type: ignore[arg-type]
    images = load_with_splits(config.data, val_fraction=0.1, test_fraction=0.2)
    return auto.choose(config, images)


FREE = {"image_size": 32, "batch_size": 16, "stem": "small", "optimizer": "muon", "lr": 0.02, "weight_decay": 0.3}
RESNET, VIT = "resnet18", "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, FREE),
        ({"init": "pretrained"}, {"image_size": 96, "model": RESNET, "model_args": {}, "stem": "standard"}),
        ({"init": "pretrained", "image_size": 32}, {"image_size": 32}),
        ({"init": "run/model.safetensors"}, {"image_size": 32, "model_args": auto.SMALL_MODEL[1]}),
        (
            {"init": "pretrained", "model": RESNET, "freeze": "none"},
            {"optimizer": "muon", "stem": "standard", "lr": 2e-3},
        ),
        (
            {"init": "pretrained", "model": RESNET, "task": "classification"},
            {"freeze": "3", "optimizer": "adamw", "lr": 1e-3, "epochs": 12, "min_scale": 0.5, "label_smoothing": 0.0},
        ),
        (
            {"init": "pretrained", "model": RESNET, "task": "multilabel", "image_size": 224, "epochs": 9000},
            {"freeze": "5", "epochs": 9000},
        ),
        ({"init": "pretrained", "model": RESNET, "mixup": 0.2}, {"freeze": "none", "epochs": 200}),
        ({"init": "pretrained", "model": VIT}, {"freeze": "none", "lr": 1e-4}),
        (
            {"init": "pretrained", "model": RESNET, "freeze": "none", "optimizer": "adamw"},
            {"lr": 1e-3},
        ),  # the whole rate: batch norm
        ({"task": "detection"}, {"min_scale": 0.4, "shift": 0.0, "optimizer": "muon", "lr": 0.02}),
        (
            {"task": "detection", "init": "pretrained", "model": RESNET, "min_scale": 0.9},
            {"min_scale": 0.9, "shift": 0.0, "optimizer": "muon", "lr": 2e-3, "new_layers_lr_scale": 10},
        ),
        ({"task": "detection", "init": "pretrained", "model": VIT}, {"optimizer": "adamw"}),
    ],
)
def test_what_is_left_open_follows_from_what_is_given(
    given: dict[str, Any], expected: dict[str, Any], colour_folder: Path
) -> None:
    config, chosen = choose(colour_folder, **given)
    found = {name: getattr(config, name) for name in expected}
    assert found == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in expected.items()}
    assert all(value is not None and getattr(config, name, value) == value for name, value in chosen.items())
    assert chosen["precision"] == suited_precision("cpu")


def test_a_batch_is_no_larger_than_the_training_images(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (12 * number, 0, 0)).save(tmp_path / f"class{number % 2}" / f"{number}.png")
    config, _ = choose(tmp_path, init="pretrained", model=RESNET, task="classification")
    assert (config.freeze, config.batch_size) == ("3", 14)


def test_what_was_given_is_kept_and_not_named(colour_folder: Path) -> None:
    given = {"image_size": 24, "batch_size": 4, "epochs": 3, "optimizer": "sgd", "lr": 0.3, "model": "resnet18"}
    config, chosen = choose(colour_folder, **given)
    assert all(getattr(config, name) == value for name, value in given.items())
    assert chosen.keys() == {"weight_decay", "stem", "init", "freeze", "precision", "memory_format"}
    assert config.weight_decay == 5e-4
    assert config.model_args == {}, "the arguments of the small model belong to it alone"


def test_a_named_model_starts_from_weights_that_lie_on_this_machine(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(colour_folder, model="resnet18")[1]["init"] == "scratch", "nothing is downloaded unasked"
    assert backbones.pretrained_weights("resnet18") == "elsewhere"
    in_hub_cache(tmp_path, "timm/resnet18.a1_in1k", "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config, chosen = choose(colour_folder, model="resnet18")
    assert (chosen["init"], config.init, config.image_size, config.stem) == ("pretrained", "pretrained", 96, "standard")
    for given in ({"stem": "small"}, {"model_args": {"stem_width": 32}}, {"init": "scratch"}, {"task": "pretrain"}):
        assert choose(colour_folder, **({"model": "resnet18"} | given))[0].init == "scratch", given
    assert choose(colour_folder)[0].init == "scratch", "the small model that is chosen for small pictures has none"
    assert choose(colour_folder, model="transformers:folder")[0].init == "scratch"


def test_muon_is_not_chosen_for_large_sets_where_it_was_never_tried(
    colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "LARGE_SET", 10)
    assert choose(colour_folder, model="convnext_atto")[0].optimizer == "adamw"
    assert choose(colour_folder, model=RESNET)[0].optimizer == "muon"


@pytest.mark.parametrize(("side", "size"), [(28, 32), (32, 32), (48, 48), (72, 64), (150, 128), (500, 128)])
def test_the_input_follows_the_typical_shorter_side(side: int, size: int, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.new("RGB", (side + 7, side), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
        (tmp_path / label / "bad.jpg").write_bytes(f"no picture: {label}".encode())
        (tmp_path / label / "empty.jpg").touch()
    assert choose(tmp_path)[0].image_size == size, "what cannot be read counts for nothing"


def test_the_weights_of_a_run_bring_their_model_unless_another_is_named(colour_folder: Path, tmp_path: Path) -> None:
    own = {"model": "vit_tiny_patch16_224", "model_args": {"depth": 2}, "stem": "small", "image_size": 40}
    kept = {"data": "x", "task": "classification", "arm": "train", "chosen": {}}
    write_json(tmp_path / "config.json", kept | own)
    weights = {"init": str(tmp_path / "model.safetensors")}
    assert choose(colour_folder, **weights)[1]["model"] != own["model"], "not a finished run"
    write_json(tmp_path / "run.json", {})
    write_json(tmp_path / "manifest.json", {})
    config, chosen = choose(colour_folder, **weights)
    assert {name: getattr(config, name) for name in own} == own
    assert {name: chosen[name] for name in own} == own
    named, _ = choose(colour_folder, **weights, model="resnet18")
    assert (named.model, named.model_args, named.image_size) == ("resnet18", {}, 32)
    assert choose(colour_folder, **weights, image_size=48)[0].image_size == 48


def test_tasks_that_need_whole_pictures_store_no_larger_ones(tmp_path: Path) -> None:
    config = TrainConfig(data="openmoji", out=tmp_path, image_size=112, min_scale=0.5)
    assert (auto.stored_size(config), auto.stored_size(config, squash=True)) == (128, 112)
