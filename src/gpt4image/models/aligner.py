"""The aligner: lets any backbone learn from text while its own code stays as it is.

It reads the pooled feature with a hook on the classifier: no subclass and no wrapper in the saved weights, so the
deployed model is the one that was named.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, Unpack, get_args

from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, ModelError, first_few, nearest
from gpt4image.models.alignment import Alignment, AlignmentOptions
from gpt4image.models.backbones import classifier_names

Head = Literal["linear", "mlp", "mlp-bn"]


class FeatureTap:
    """Forward pre-hook that keeps the input of a layer while it is open, and does nothing otherwise."""

    open = False
    features: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keep the first input of the layer."""
        if self.open:
            self.features = inputs[0]


class Aligner(nn.Module):
    """A backbone with a projection head from its pooled feature to the text space.

    The pooled feature is the input of the classifier layer, read while the backbone runs: global average pool in a
    CNN, CLS or pooled token after the final norm in a ViT. ``backbone`` keeps its code, weights and state_dict: after
    training save only it, or take it back with ``release``. For torch.compile compile the aligner, not its backbone.

    Args:
        backbone: any module from images to logits whose last step is a linear or convolutional classifier.
        text_width: D, width of the text embeddings.
        head: ``linear`` (no bias), ``mlp`` (Linear-ReLU-Linear, the paper's for DeiT) or ``mlp-bn``
            (Linear-BatchNorm-ReLU-Linear, the paper's for ResNet).
        classifier: dotted name of the classifier layer, where it is not timm's or the last nn.Linear.
        texts: a text encoder that learns too: any module from what ``forward`` gets as ``texts`` to text embeddings.
        options: what ``alignment_loss`` computes: ``loss``, ``temperature`` and the others of ``Alignment``. With
            ``paper_compat`` the head starts from truncated normal weights, as in the official code.

    Raises:
        ModelError: the classifier layer is not found, or is neither nn.Linear nor nn.Conv2d.
        ConfigError: an unknown head, or options that ``Alignment`` refuses.
    """

    def __init__(
        self,
        backbone: nn.Module,
        text_width: int,
        *,
        head: Head = "linear",
        classifier: str | None = None,
        texts: nn.Module | None = None,
        **options: Unpack[AlignmentOptions],
    ) -> None:
        super().__init__()
        self.alignment = Alignment(**options)
        self.backbone = backbone
        self.classifier = classifier_names(backbone)[0] if classifier is None else classifier
        self.head = projection_head(head, _feature_width(backbone, self.classifier), text_width)
        if self.alignment.paper_compat:
            _start_as_in_the_paper(self.head)
        self.texts = texts
        self._tap = FeatureTap()
        self._hook = backbone.get_submodule(self.classifier).register_forward_pre_hook(self._tap)

    def forward(self, images: Tensor, *, with_features: bool = False, texts: Any = None) -> tuple[Any, ...]:
        """Return what the backbone returns, logits (B, K), and the image embeddings (B, D), not normalised.

        With ``with_features`` also what classifier and head read, (B, C) in most models: see ``gradient_ratio``. With
        ``texts`` also the text embeddings (B, D) that the text encoder makes of them.
        """
        if getattr(self, "_is_replica", False):
            raise ModelError(
                "nn.DataParallel would compare the images of each GPU only with each other: start one process per GPU "
                "(torchrun --nproc-per-node N), or show only one GPU (CUDA_VISIBLE_DEVICES=0)."
            )
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
        image_emb = self.head(_pool(features, self.backbone.get_submodule(self.classifier)))
        found = (logits, image_emb, features) if with_features else (logits, image_emb)
        return found if self.texts is None or texts is None else (*found, self.texts(texts))

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay: what the backbone says, and the loss's own."""
        return {"alignment.log_scale", "alignment.bias"} | not_decayed(self.backbone)

    def release(self) -> nn.Module:
        """Return the backbone exactly as it was given, without the hook; the aligner cannot run afterwards."""
        self._hook.remove()
        return self.backbone

    def alignment_loss(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        *,
        mixing: Tensor | None = None,
        described: Tensor | None = None,
        text_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the alignment loss chosen at construction, a scalar.

        Where several processes share a batch, each gives its own rows and gets the loss of the whole batch, in which
        the images of all processes are negatives; the gradient is that of one process.

        Args:
            image_emb: (B, D) of ``forward``.
            text_emb: (B, D), row i belongs to image i.
            mixing: (B, B) weights of the images that each mixed image is made of (mixup, CutMix); the texts are
                weighted alike.
            described: (B,) bool, which texts exist; all without it.
            text_ids: (B,) int64; texts that share a number are not each other's negatives; a negative number is no
                text. Or (B, 2), where it is enough that one of the two columns is shared.
            labels: (B,) int64 classes of the unmixed images, negative where there is none; for ``same_class``.

        Raises:
            ConfigError: tensors that do not fit.
        """
        return self.alignment(image_emb, text_emb, mixing=mixing, described=described, text_ids=text_ids, labels=labels)


def not_decayed(backbone: nn.Module) -> set[str]:
    """Return the names under ``backbone.`` of the parameters that a model of timm wants to be free of weight decay."""
    return {f"backbone.{name}" for name in getattr(backbone, "no_weight_decay", set)()}


def projection_head(kind: Head, feature_width: int, text_width: int) -> nn.Module:
    """Return the projection (B, feature_width) -> (B, text_width); hidden layers are twice as wide as the text.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind == "linear":
        return nn.Linear(feature_width, text_width, bias=False)
    if kind not in get_args(Head):
        raise ConfigError(f"head {nearest(kind, get_args(Head))}")
    hidden, with_norm = 2 * text_width, kind == "mlp-bn"
    norm = [nn.BatchNorm1d(hidden)] if with_norm else []
    first = nn.Linear(feature_width, hidden, bias=not with_norm)
    return nn.Sequential(first, *norm, nn.ReLU(), nn.Linear(hidden, text_width))


def _start_as_in_the_paper(head: nn.Module) -> None:
    """Draw the weights of a head as the official code does: its DeiTs, of the plain MLP, have a smaller deviation."""
    plain_mlp = isinstance(head, nn.Sequential) and len(head) == len(("Linear", "ReLU", "Linear"))
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02 if plain_mlp else 1024**-0.5)


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
