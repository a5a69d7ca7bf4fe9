"""A model of images made one of clips: temporal shift inside its blocks, attention over frames before its classifier.

Temporal shift (TSM: Lin et al. 2019, arXiv 1811.08383) hands an eighth of the channels that a block reads to the next
frame and an eighth to the frame before; it has no parameters. Attention pooling weighs the features of the frames by a
learned query. Both are hooks on a model as it is: code, names of weights and classifier stay, pretrained weights fit.

Differences of neighbouring frames may take the place of the frames (RGB difference: Wang et al. 2016, arXiv
1608.00859): a background that stands still is 0 in them, so that few clips do not suffice to learn it by heart.

Legend: B clips, T frames, C channels, S side in pixels.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gpt4image.models.backbones import FRAME_POOL, classifier_names

SHIFTED = 8  # one channel of so many goes to each side, as in the paper


class FramePool(nn.Module):
    """Attention over the T features of a clip; at first their mean. Holds the hooks of the whole model."""

    def __init__(self, width: int, *, differences: bool = False) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))
        self.differences = differences
        self.frames = 1

    def fold(self, _model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return clips (B, 3 T, S, S) or (B, T, 3, S, S) as images (B T, 3, S, S)."""
        clips = inputs[0]
        last = clips.ndim == 4 and not clips.is_contiguous()
        frames = clips.reshape(clips.shape[0], -1, 3, *clips.shape[-2:])
        if self.differences:
            frames = frames[:, 1:] - frames[:, :-1]
        self.frames = frames.shape[1]
        images = frames.flatten(0, 1)
        return (images.contiguous(memory_format=torch.channels_last) if last else images,)

    def shift_images(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return what a convolution reads, (B T, C, ...), shifted; see ``shifted``."""
        return (shifted(inputs[0], self.frames, 1),)

    def shift_tokens(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return what a linear layer reads, (B T, ..., C), shifted; see ``shifted``."""
        return (shifted(inputs[0], self.frames, -1),)

    def pool(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Return what the classifier reads of each clip: (B T, C) or (B T, C, 1, 1) to (B, C) or (B, C, 1, 1)."""
        x = inputs[0].unflatten(0, (-1, self.frames))  # (B, T, C) or (B, T, C, 1, 1)
        weights = (x.flatten(2) @ self.query.to(x.dtype)).softmax(dim=1)
        return ((x * weights.view(*weights.shape, *[1] * (x.ndim - 2))).sum(dim=1),)


def shifted(x: Tensor, frames: int, axis: int) -> Tensor:
    """Return x (B T, ...) with an eighth of its channels from the frame before, and an eighth from the next one."""
    if frames == 1:
        return x
    moved = x.clone()
    before, after = (tensor.unflatten(0, (-1, frames)).movedim(axis + (axis > 0), -1) for tensor in (x, moved))
    part = x.shape[axis] // SHIFTED
    after[:, 0, ..., :part] = 0
    after[:, 1:, ..., :part] = before[:, :-1, ..., :part]
    after[:, -1, ..., part : 2 * part] = 0
    after[:, :-1, ..., part : 2 * part] = before[:, 1:, ..., part : 2 * part]
    return moved


def temporal(model: nn.Module, size: int, *, differences: bool = False) -> nn.Module:
    """Make a model of timm, or any with such parts, one of clips, in place; ``size`` is S."""
    names = classifier_names(model)
    layers = [model.get_submodule(name) for name in names]
    width: Any = layers[0].in_features if isinstance(layers[0], nn.Linear) else layers[0].in_channels
    pool = FramePool(width, differences=differences)
    model.add_module(FRAME_POOL, pool)
    model.register_forward_pre_hook(pool.fold)
    for layer in _shiftable(model, size):
        layer.register_forward_pre_hook(pool.shift_images if isinstance(layer, nn.Conv2d) else pool.shift_tokens)
    for layer in layers:
        layer.register_forward_pre_hook(pool.pool)
    return model


def _shiftable(model: nn.Module, size: int) -> list[nn.Module]:
    """Return the first layer with weights of each block, if it reads one row per image: seen without computing."""
    first, images, rows = list(_first_layers(model)), 3, dict[nn.Module, int]()
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: rows.update({layer: len(inputs[0])})) for layer in first
    ]
    tensors = (*model.named_parameters(), *model.named_buffers())
    was_training = model.training
    model.eval()
    with torch.no_grad():
        blank = torch.zeros(images, 3, size, size, device="meta")
        functional_call(model, {name: tensor.detach().to("meta") for name, tensor in tensors}, (blank,))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return [layer for layer in first if rows.get(layer) == images]


def _first_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the first convolution or linear layer of each block, as timm groups parameters by blocks."""
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        return
    blocks = matcher(coarse=False).get("blocks", ())
    patterns = [blocks] if isinstance(blocks, str) else [pattern for pattern, place in blocks if place is None]
    seen: set[str] = set()
    for name, layer in model.named_modules():
        found = next((match[0] for pattern in patterns if (match := re.match(pattern, name))), None)
        if found is not None and found not in seen and isinstance(layer, nn.Conv2d | nn.Linear):
            seen.add(found)
            yield layer
