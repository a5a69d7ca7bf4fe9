"""Models of clips: what is shifted between frames, how frames are weighed, and what stays as it was."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gpt4image.models.temporal import shifted, temporal


def by_loops(x: torch.Tensor, frames: int, axis: int) -> torch.Tensor:
    """Temporal shift, one channel and frame at a time."""
    moved = x.clone()
    channels = x.shape[axis]
    for row in range(len(x)):
        frame = row % frames
        for channel in range(channels):
            step = -1 if channel < channels // 8 else 1 if channel < 2 * (channels // 8) else 0
            where = moved[row].select(axis - 1 if axis > 0 else axis, channel)
            inside = 0 <= frame + step < frames
            where.copy_(x[row + step].select(axis - 1 if axis > 0 else axis, channel) if inside else torch.zeros(()))
    return moved


@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 20), st.sampled_from([1, -1]))
def test_shift_is_that_of_the_paper(clips: int, frames: int, channels: int, axis: int) -> None:
    shape = (clips * frames, channels, 2, 3) if axis == 1 else (clips * frames, 3, channels)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shifted(x, frames, axis), by_loops(x, frames, axis))
    assert shifted(x, 1, axis) is x


@pytest.mark.parametrize("apart", [False, True])
def test_differences_of_frames_hide_what_stands_still(apart: bool) -> None:
    torch.manual_seed(0)
    model = temporal(timm.create_model("resnet10t", num_classes=3), 32, differences=True).eval()
    clip, background = torch.randn(2, 4, 3, 32, 32), torch.randn(2, 1, 3, 32, 32)
    shape = clip.shape if apart else (2, 12, 32, 32)
    with torch.no_grad():
        moving, before_another = (model(x.reshape(shape)) for x in (clip, clip + background))
        still = model(background.expand_as(clip).reshape(shape))
    assert torch.allclose(moving, before_another, atol=1e-4)
    assert torch.allclose(still[0], still[1], atol=1e-5) and not torch.allclose(moving, still, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("resnet10t", 32, ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]),
        ("vit_tiny_patch16_224", 32, [f"blocks.{block}.attn.qkv" for block in range(12)]),
        ("test_convnext", 32, ["stages.0.blocks.0.conv_dw", "stages.1.blocks.0.conv_dw", "stages.1.blocks.1.conv_dw"]),
    ],
)
def test_frames_are_shifted_where_each_block_begins(name: str, size: int, layers: list[str]) -> None:
    args = {"img_size": size} if name.startswith("vit") else {}
    model = temporal(timm.create_model(name, num_classes=3, **args), size)
    assert hooked(model)[: len(layers)] == layers


def hooked(model: nn.Module) -> list[str]:
    """Return the names of the layers whose input is shifted."""

    def is_shift(hook: object) -> bool:
        return getattr(hook, "__name__", "").startswith("shift")

    return [name for name, layer in model.named_modules() if any(map(is_shift, layer._forward_pre_hooks.values()))]


def test_windows_of_an_image_are_not_taken_for_frames() -> None:
    model = temporal(timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, img_size=56), 56)
    assert all(name.startswith(("layers.1", "layers.2", "layers.3")) for name in hooked(model))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    found = temporal(timm.create_model("resnet10t", num_classes=3, channels=[8, 8, 16, 16], stem_width=8), 32).eval()
    for layer in found.modules():
        if isinstance(layer, nn.BatchNorm2d):  # timm begins with blocks that add nothing
            nn.init.ones_(layer.weight)
    return found


@torch.no_grad()
def test_order_matters_and_both_forms_of_a_clip_are_the_same(model: nn.Module) -> None:
    clips = torch.randn(2, 4, 3, 32, 32)
    logits = model(clips)
    assert logits.shape == (2, 3)
    assert torch.equal(model(clips.flatten(1, 2)), logits)
    last = clips.flatten(1, 2).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(model(last), logits, atol=1e-5)
    assert not torch.allclose(model(clips.flip(1)), logits, atol=1e-3)
    assert torch.allclose(model(clips[:1]), logits[:1], atol=1e-5), "a clip knows nothing of its neighbours"
