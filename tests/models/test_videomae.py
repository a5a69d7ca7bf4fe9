"""VideoMAE, small and untrained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt4image.base.errors import ModelError
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import create_backbone, has_batch_norm, has_small_stem
from gpt4image.models.videomae import VideoMae

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "num_frames": 4}


def tiny(**changes: object) -> VideoMae:
    module = create_backbone("videomae", classes=3, image_size=32, model_args={**TINY, **changes}).module
    assert isinstance(module, VideoMae)
    return module.eval()


@torch.no_grad()
def test_both_forms_of_a_clip_give_the_same_logits_and_features() -> None:
    model, clips = tiny(), torch.randn(2, 4, 3, 32, 32)
    logits = model(clips)
    assert logits.shape == (2, 3)
    assert torch.equal(model(clips.flatten(1, 2)), logits)
    assert not torch.allclose(model(clips.flip(1)), logits, atol=1e-4)
    _, embeddings = Aligner(model, 5)(clips.flatten(1, 2))
    assert embeddings.shape == (2, 5)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of transformers about its own attention
def test_pretrained_weights_come_from_a_folder_with_a_new_classifier(tmp_path: Path) -> None:
    model = tiny()
    model.network.save_pretrained(tmp_path)
    backbone = create_backbone(
        f"videomae:{tmp_path}", classes=5, image_size=32, init="pretrained", model_args={"num_frames": 4}
    )
    assert backbone.new_layers == ("network.classifier",)
    weights, given = backbone.module.state_dict(), model.state_dict()
    same = {
        name for name in given if given[name].shape == weights[name].shape and torch.equal(given[name], weights[name])
    }
    assert given.keys() - same == {"network.classifier.weight", "network.classifier.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 5}, "--frames 5 must be a multiple of 2"),
        ({"patch_size": 7}, "--image-size 32 of 7"),
        ({"hidden_size": 33}, "cannot be made"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tiny(**changes)


def test_its_folder_may_be_on_the_hub() -> None:
    assert not has_batch_norm("videomae") and not has_small_stem("videomae:MCG-NJU/videomae-base")
    with pytest.raises(ModelError, match="--model videomae:NAME_OR_PATH"):
        create_backbone("videomae", classes=3, image_size=32, init="pretrained", model_args=TINY)
    with pytest.raises(ModelError, match="no folder"):
        create_backbone("videomae:/nowhere", classes=3, image_size=32, model_args=TINY)
