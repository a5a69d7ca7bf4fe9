"""ResNets of timm with the stem that is usual for CIFAR, as a timm model of its own: `small_stem_resnet`.

timm has no argument for this stem. Importing this file registers the model, so that an exported folder which names it
is loaded by plain timm; it needs only timm and torch, and lies in such folders as it is here:

    import small_stem
    model = timm.create_model("local-dir:FOLDER", pretrained=True)
"""

from typing import Any

import timm
from timm.models import is_model, load_pretrained, register_model
from torch import nn

NAME = "small_stem_resnet"


def shrink_stem(model: Any, stride: int) -> bool:
    """Give a ResNet of timm 3x3 convolutions of ``stride`` first, and no pooling; return whether the first is new."""
    model.maxpool = nn.Identity()
    first = model.conv1
    if not isinstance(first, nn.Conv2d):
        next(layer for layer in first.modules() if isinstance(layer, nn.Conv2d)).stride = (stride, stride)
        return False
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return True


def small_stem_resnet(pretrained: bool = False, *, base: object, stride: int, **kwargs: Any) -> nn.Module:
    """Create the timm model ``base`` with a small stem; its weights are those that the folder or repository holds."""
    if not isinstance(base, str) or not base.isidentifier() or not is_model(base):
        raise ValueError(f"base must be the name of a ResNet of timm, not {base!r}")
    model: Any = timm.create_model(base, pretrained=False, **kwargs)
    shrink_stem(model, stride)
    if pretrained:
        load_pretrained(model, num_classes=model.num_classes, in_chans=kwargs.get("in_chans", 3))
    model.pretrained_cfg["architecture"] = NAME
    return model


if not is_model(NAME):  # gpt4image registers it too
    register_model(small_stem_resnet)
