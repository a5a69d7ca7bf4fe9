"""Heads on the pooled feature of a backbone, whose own code and weights stay as they are.

The pooled feature is read with a hook on the classifier: no subclass and no wrapper in the saved weights, so the
deployed model is the one that was named.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from gpt4image.base.errors import ModelError, first_few
from gpt4image.models.backbones import classifier_names


class FeatureTap:
    """Forward pre-hook that keeps the input of a layer while it is open, and does nothing otherwise."""

    open = False
    features: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keep the first input of the layer."""
        if self.open:
            self.features = inputs[0]


class Tapped(nn.Module):
    """A backbone whose pooled feature is read while it runs; base of ``Headed`` and ``Aligner``.

    Attributes:
        backbone: as it was given.
        classifier: dotted name of its classifier layer, whose input is the feature.
        heads: by name, what else maps the pooled feature (B, C) to an output; dropped after training.
    """

    def __init__(self, backbone: nn.Module, classifier: str | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier_names(backbone)[0] if classifier is None else classifier
        self.feature_width = _feature_width(backbone, self.classifier)
        self.heads = nn.ModuleDict()
        self._tap = FeatureTap()
        self._hook = backbone.get_submodule(self.classifier).register_forward_pre_hook(self._tap)

    def read(self, images: Tensor) -> tuple[Any, Tensor]:
        """Return what the backbone returns, and the mean over places of what its classifier reads, (B, C)."""
        self._tap.open = True
        try:
            logits = self.backbone(images)
            features = self._tap.features
        finally:
            self._tap.open, self._tap.features = False, None
        if features is None:
            raise ModelError(
                f"The classifier layer {self.classifier!r} did not run, so there is no feature to align: name the "
                "layer that gives the logits, Aligner(..., classifier=NAME), and compile the Aligner, not its backbone."
            )
        return logits, _pool(features, self.backbone.get_submodule(self.classifier))

    def of_heads(self, pooled: Tensor) -> tuple[dict[str, Tensor], ...]:
        """Return a table of the outputs of ``heads``, where there are some, as what ``forward`` returns last."""
        return ({name: head(pooled) for name, head in self.heads.items()},) if len(self.heads) else ()

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay."""
        return not_decayed(self.backbone)

    def release(self) -> nn.Module:
        """Return the backbone exactly as it was given, without the hook; the heads cannot run afterwards."""
        self._hook.remove()
        return self.backbone


class Headed(Tapped):
    """A backbone with heads, in the place of an Aligner where no feature is aligned to texts."""

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """Return logits (B, K), None for no image embeddings, and the table of the outputs of the heads."""
        logits, pooled = self.read(images)
        return (logits, None, *self.of_heads(pooled))


class Plain(nn.Module):
    """A backbone in the place of an Aligner: no text and no head takes part. It takes images, or kept features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        """Return logits (B, K) and None."""
        return classified(self.backbone, images), None

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay."""
        return not_decayed(self.backbone)


def classified(backbone: nn.Module, inputs: Tensor) -> Any:
    """Return what a backbone makes of images, or its classifier of their features (B, C)."""
    if inputs.ndim == 2:
        return backbone.get_classifier()(inputs)  # pyright: ignore[reportCallIssue]
    return backbone(inputs)


def not_decayed(backbone: nn.Module) -> set[str]:
    """Return the names under ``backbone.`` of the parameters that a model of timm wants to be free of weight decay."""
    return {f"backbone.{name}" for name in getattr(backbone, "no_weight_decay", set)()}


def freeze_all_but_classifier(backbone: nn.Module, new_layers: Collection[str] = ()) -> tuple[str, ...]:
    """Let nothing but the classifier of a backbone learn, and return its layers by name."""
    names = classifier_names(backbone)
    backbone.requires_grad_(requires_grad=False)
    for name in names:
        layer = backbone.get_submodule(name).requires_grad_(requires_grad=True)
        for parameter in layer.parameters() if name in new_layers else ():
            nn.init.zeros_(parameter)
    return names


def _feature_width(backbone: nn.Module, classifier: str) -> int:
    """Return C, the width of the input of the classifier layer."""
    try:
        layer = backbone.get_submodule(classifier)
    except AttributeError:
        names = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        close = difflib.get_close_matches(classifier, names, n=3, cutoff=0.4) or names[-3:]
        raise ModelError(
            f"{type(backbone).__name__} has no layer {classifier!r}; layers of that kind are {first_few(close)}."
        ) from None
    if isinstance(layer, nn.Linear | nn.Conv2d):
        return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    raise ModelError(
        f"The classifier layer {classifier!r} is a {type(layer).__name__}: an nn.Linear or nn.Conv2d is needed."
    )


def _pool(features: Tensor, classifier: nn.Module) -> Tensor:
    """Average what a linear (B, ..., C) or convolutional (B, C, ...) classifier reads to (B, C)."""
    if features.ndim == 2:
        return features
    return features.flatten(2).mean(2) if isinstance(classifier, nn.Conv2d) else features.flatten(1, -2).mean(1)
