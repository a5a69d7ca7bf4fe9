"""A backbone cut between two of its stages: what stays as it is, and the part behind it, which learns.

The first stages of pretrained weights give the same activations of the same pixels in every epoch, so they are computed
once. The part behind them then runs on activations in the place of images.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

SAME = 1e-3
"""Largest difference, relative to the largest logit, between a backbone and its two parts one after the other."""


class Cut(NamedTuple):
    """What a backbone does up to a stage, (B, 3, T, T) -> (B, C, H, W), and from there on, (B, C, H, W) -> (B, K)."""

    kept: nn.Module
    learned: nn.Module


def stages(backbone: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the stages of a timm model, in order; none where it does not tell them."""
    known: Any = getattr(backbone, "feature_info", None) or ()
    named = [str(each["module"]) for each in known]
    parent = named[-1].rpartition(".")[0] if named else ""
    if parent:
        return tuple(f"{parent}.{name}" for name, _ in backbone.get_submodule(parent).named_children())
    return tuple(name for name in named if "." not in name)


def cut(backbone: nn.Module, stage: str, image_size: int) -> Cut | None:
    """Cut a backbone behind a stage; None where its two parts, one after the other, do not do what it does.

    Both parts share their weights with the backbone, which stays whole. A Vision Transformer, for one, cannot be cut:
    it adds positions to its tokens outside of any layer.
    """
    first = next(backbone.parameters())
    images = torch.linspace(-1, 1, 3 * image_size**2).view(1, 3, image_size, image_size).to(first)
    parts = Cut(_Until(backbone, stage), behind(backbone, stage))
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            whole, again = backbone(images), parts.learned(parts.kept(images))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return None
    finally:
        backbone.train(training)
    largest = float(whole.abs().max())
    return parts if float((whole - again).abs().max()) <= SAME * max(largest, 1e-6) else None


def operations(backbone: nn.Module, image_size: int) -> dict[str, int]:
    """Return the floating-point operations of each stage for one image; "" is the rest. On the device ``meta``."""
    counter = FlopCounterMode(display=False, depth=3)
    with counter, torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, image_size, image_size, device="meta"))
    counts: Any = counter.get_flop_counts()
    root = type(backbone).__name__
    total = sum(counts["Global"].values())
    found = {name: sum(counts.get(f"{root}.{name}", {}).values()) for name in stages(backbone)}
    return {**found, "": total - sum(found.values())}


class _Reached(Exception):  # noqa: N818  no error: it ends a pass through a model
    pass


class _Until(nn.Module):
    """Runs a backbone up to a stage, and returns what that stage gives."""

    def __init__(self, backbone: nn.Module, stage: str) -> None:
        super().__init__()
        self._backbone, self._stage = backbone, stage

    def forward(self, images: Tensor) -> Tensor:
        found: list[Tensor] = []

        def reached(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found.append(output)
            raise _Reached

        hook = self._backbone.get_submodule(self._stage).register_forward_hook(reached)
        try:
            self._backbone(images)
        except _Reached:
            return found[0]
        finally:
            hook.remove()
        raise RuntimeError(f"{self._stage} did not run")


def behind(backbone: nn.Module, stage: str) -> nn.Module:
    """Return a backbone whose layers up to a stage do nothing; the others are those of the backbone itself."""
    whole = node = _with_own_children(backbone)
    names = stage.split(".")
    for depth, name in enumerate(names, 1):
        children = dict(node.named_children())
        for earlier in list(children)[: list(children).index(name)]:
            setattr(node, earlier, nn.Identity())
        child = nn.Identity() if depth == len(names) else _with_own_children(children[name])
        setattr(node, name, child)
        node = child
    return whole


def _with_own_children(module: nn.Module) -> nn.Module:
    shallow = copy.copy(module)
    vars(shallow)["_modules"] = dict(vars(module)["_modules"])
    return shallow
