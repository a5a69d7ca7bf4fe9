"""A backbone in two parts: what stays as it is, and what learns."""

import pytest
import timm
import torch
from torch import nn

from gpt4image.base.errors import ModelError
from gpt4image.models.aligner import Headed, freeze_stages
from gpt4image.models.backbones import operations_behind
from gpt4image.models.stages import cut, stages


def model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3).eval()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_two_parts_do_what_the_whole_does(name: str) -> None:
    whole, images = model(name), torch.randn(2, 3, 64, 64)
    names = stages(whole)
    assert len(names) >= 4
    for stage in names:
        parts = cut(whole, stage, 64)
        assert parts is not None
        with torch.no_grad():
            torch.testing.assert_close(parts.learned(parts.kept(images)), whole(images))
    costs = operations_behind(name, 64)
    assert len(costs) == 1 + len(names) and sorted(costs, reverse=True) == list(costs) and costs[-1] >= 0


def test_a_model_that_cannot_be_cut_is_known() -> None:
    vit = model("test_vit")
    assert cut(vit, stages(vit)[0], 160) is None
    assert operations_behind("test_vit", 160) == () == operations_behind("transformers:any", 160)


def test_only_what_is_behind_learns_and_activations_take_the_place_of_images() -> None:
    whole = model("resnet10t")
    freeze_stages(whole, 3)
    learned = {name.split(".")[0] for name, each in whole.named_parameters() if each.requires_grad}
    assert learned == {"layer3", "layer4", "fc"}
    headed, images = Headed(whole).eval(), torch.randn(2, 3, 64, 64)
    expected = headed.read(images)
    parts = cut(whole, "layer2", 64)
    assert parts is not None
    headed.begin_behind("layer2")
    for ours, theirs in zip(headed.read(parts.kept(images)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert headed.state_dict().keys() == Headed(whole).state_dict().keys()
    with pytest.raises(ModelError, match="--freeze 9"):
        freeze_stages(whole, 9)
