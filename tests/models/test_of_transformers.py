"""Dense models of transformers by name: from a configuration, from weights, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gpt4image.base.errors import ModelError
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone, has_batch_norm, has_small_stem
from gpt4image.models.compiling import checkpoint_activations, compile_training
from gpt4image.models.of_transformers import create_of_transformers, kind_of
from tiny_dense import RT_DETR, SEGFORMER, write_config, write_weights


def test_the_standard_models_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        made = {
            name: create_of_transformers(name, 80, 64, pretrained=False, model_args={}).module
            for name in ("rt-detr-v2", "segformer")
        }
    counts = {name: round(sum(part.numel() for part in module.parameters()) / 1e6) for name, module in made.items()}
    assert counts == {"rt-detr-v2": 43, "segformer": 4}


def test_names() -> None:
    assert kind_of("resnet18") is None
    assert kind_of("segformer:somewhere") is kind_of("segformer")
    assert not has_batch_norm("segformer") and not has_small_stem("rt-detr-v2")


@pytest.mark.parametrize("size", [32, 64])
def test_segformer_gives_logits_of_cells_and_a_pooled_feature(size: int, tmp_path: Path) -> None:
    model = create_backbone(write_config(tmp_path, SEGFORMER), classes=3, image_size=size).module
    assert model(torch.randn(2, 3, size, size)).shape == (2, 3, size // 4, size // 4)
    assert Aligner(model, 7)(torch.randn(2, 3, size, size))[1].shape == (2, 7)


@pytest.mark.parametrize(
    ("config", "new"),
    [
        (RT_DETR, {"network.enc_score_head", "network.decoder.class_embed.0", "network.decoder.class_embed.1"}),
        (SEGFORMER, {"network.decode_head.classifier"}),
    ],
    ids=["rt-detr-v2", "segformer"],
)
def test_weights_of_a_folder_are_read_except_those_of_other_classes(
    config: dict[str, Any], new: set[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = write_weights(tmp_path / "weights", config, 4)
    capfd.readouterr()
    same = create_backbone(name, classes=4, image_size=32, init="pretrained")
    other = create_backbone(name, classes=3, image_size=32, init="pretrained")
    assert (same.new_layers, set(other.new_layers)) == ((), new)
    assert capfd.readouterr() == ("", "")  # transformers draws no bars and no tables
    ours, theirs = other.module.state_dict(), same.module.state_dict()
    differ = {key.rpartition(".")[0] for key in ours if not torch.equal(ours[key], theirs[key])}
    assert differ == new
    scratch = create_backbone(name, classes=4, image_size=32).module
    assert not torch.equal(next(scratch.parameters()), next(same.module.parameters()))
    save_file(same.module.state_dict(), tmp_path / "run.safetensors")
    again = create_backbone(name, classes=3, image_size=32, init=str(tmp_path / "run.safetensors"))
    assert set(again.new_layers) == new and "other classes" in again.notes[0]


def test_weights_that_lack_more_than_the_classes_are_refused(tmp_path: Path) -> None:
    name = write_weights(tmp_path, SEGFORMER, 4)
    with pytest.raises(ModelError, match="its weights lack"):
        create_backbone(name, classes=4, image_size=32, init="pretrained", model_args={"hidden_sizes": [8, 8, 16, 32]})
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="its weights cannot be loaded"):
        create_backbone(name, classes=4, image_size=32, init="pretrained")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"image_size": 48}, "--image-size 48 must be a multiple of 32"),
        ({}, {"model_args": {"depth": 3}}, "has no 'depth'"),
        ({}, {"model_args": {"d_model": "wide"}}, "cannot be made"),
        ({}, {"stem": "small"}, "without --stem small"),
        ({}, {"drop_path": 0.1}, "--drop-path"),
        ({"model_type": "detr"}, {}, "of a 'detr', not of a 'rt_detr_v2'"),
        ({"backbone": "resnet50", "use_timm_backbone": True}, {}, "its backbone is a 'resnet50'"),
        ({"backbone_config": {"model_type": "timm_backbone"}}, {}, "its backbone is a 'timm_backbone'"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, {}, "code that comes with a model is never run"),
    ],
)
def test_what_cannot_be_used_is_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_config(tmp_path, {**RT_DETR, **changes})
    with pytest.raises(ModelError, match=message):
        create_backbone(f"rt-detr-v2:{tmp_path}", **{"classes": 3, "image_size": 32, **options})


def test_nothing_is_fetched() -> None:
    with pytest.raises(ModelError, match="there is no folder 'PekingU/rtdetr_v2_r18vd'"):
        create_backbone("rt-detr-v2:PekingU/rtdetr_v2_r18vd", classes=3, image_size=64)
    with pytest.raises(ModelError, match="weights come from a local folder"):
        create_backbone("segformer", classes=3, image_size=64, init="pretrained")


def test_what_only_models_of_timm_have_is_refused(tmp_path: Path) -> None:
    model = create_backbone(write_config(tmp_path, SEGFORMER), classes=3, image_size=32).module
    with pytest.raises(ModelError, match="--compile is for models of timm"):
        compile_training(model, torch.device("cpu"))
    with pytest.raises(ModelError, match="--checkpoint-activations"):
        checkpoint_activations(model, "segformer")
