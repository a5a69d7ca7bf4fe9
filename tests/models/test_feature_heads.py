"""Heads on the pooled feature: their outputs, and a backbone that stays as it was given."""

from __future__ import annotations

import torch
from torch import nn

from gpt4image.models.feature_heads import Headed, freeze_all_but_classifier
from small_models import images, small_resnet


def test_heads_read_the_pooled_feature_and_the_backbone_stays() -> None:
    backbone = small_resnet().eval()
    before = set(backbone.state_dict())
    model = Headed(backbone).eval()
    model.heads["twice"] = nn.Linear(model.feature_width, 2)
    logits, embeddings, heads = model(images(3))
    assert embeddings is None and set(heads) == {"twice"}
    feature = backbone.forward_head(backbone.forward_features(images(3)), pre_logits=True)
    torch.testing.assert_close(heads["twice"], model.heads["twice"](feature))
    torch.testing.assert_close(logits, backbone(images(3)))
    assert set(model.release().state_dict()) == before
    assert model.read.__doc__ and model.classifier == "fc"


def test_only_the_classifier_learns_on_frozen_weights() -> None:
    backbone = small_resnet()
    assert freeze_all_but_classifier(backbone) == ("fc",) and backbone.fc.weight.any()
    assert freeze_all_but_classifier(backbone, ["fc"]) == ("fc",) and not backbone.fc.weight.any()
    learns = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert learns == {"fc.weight", "fc.bias"}
