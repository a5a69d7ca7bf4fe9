"""The aligner: lets any backbone learn from text while its own code stays as it is.

It reads the pooled feature with a hook on the classifier: no subclass and no wrapper in the saved weights, so the
deployed model is the one that was named.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, ModelError, nearest
from gpt4image.config.learning import PAPER_LOSSES
from gpt4image.models.alignment_losses import LOSSES
from gpt4image.models.backbones import classifier_names
from gpt4image.models.stages import behind, stages
from gpt4image.parallel import processes

Head = Literal["linear", "mlp", "mlp-bn"]


class FeatureTap:
    """Forward pre-hook that keeps the first input of a layer while it is open, and does nothing otherwise."""

    open = False
    features: Tensor | None = None

    def __call__(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keep the input."""
        if self.open:
            self.features = inputs[0]


class Headed(nn.Module):
    """A backbone whose pooled feature can be read while it runs, with heads that map it to further outputs.

    ``classifier`` is the dotted name of the layer whose input is the feature; ``heads`` by name take it, (B, C), and
    are dropped after training.
    """

    def __init__(self, backbone: nn.Module, classifier: str | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier_names(backbone)[0] if classifier is None else classifier
        layers = {name: each for name, each in backbone.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
        if self.classifier not in layers:
            raise ModelError(
                f"{type(backbone).__name__} has no such layer: classifier {nearest(self.classifier, layers)}"
            )
        layer = layers[self.classifier]
        self.feature_width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        self.heads = nn.ModuleDict()
        self._tap = FeatureTap()
        self._hook = layer.register_forward_pre_hook(self._tap)
        self._behind: tuple[nn.Module, ...] = ()

    def begin_behind(self, stage: str) -> None:
        """Take activations of a stage, (B, C, H, W), in the place of images from now on; see ``models.stages``."""
        self._behind = (behind(self.backbone, stage),)  # in a tuple: it holds no weights of its own

    def classify(self, inputs: Tensor) -> Any:
        """Return what the backbone makes of images, or of activations, or its classifier of features (B, C)."""
        if inputs.ndim == 2:
            return self.backbone.get_classifier()(inputs)  # pyright: ignore[reportCallIssue]
        return (*self._behind, self.backbone)[0](inputs)

    def read(self, images: Tensor) -> tuple[Any, Tensor]:
        """Return what the backbone returns, and the mean over places of what its classifier reads, (B, C)."""
        self._tap.open = True
        try:
            logits = self.classify(images)
            features = self._tap.features
        finally:
            self._tap.open, self._tap.features = False, None
        if features is None:
            raise ModelError(
                f"The classifier layer {self.classifier!r} did not run, so there is no feature to align: name the "
                "layer that gives the logits, Aligner(..., classifier=NAME), and compile the Aligner, not its backbone."
            )
        return logits, _pool(features, self.backbone.get_submodule(self.classifier))

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """Return logits (B, K) of images or of kept features, None, and the table of the outputs of the heads."""
        if not len(self.heads):
            return self.classify(images), None
        logits, pooled = self.read(images)
        return (logits, None, *self.of_heads(pooled))

    def of_heads(self, pooled: Tensor) -> tuple[dict[str, Tensor], ...]:
        """Return a table of the outputs of ``heads``, where there are some, as what ``forward`` returns last."""
        return ({name: head(pooled) for name, head in self.heads.items()},) if len(self.heads) else ()

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay, as timm's optimizers ask for them."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}

    def release(self) -> nn.Module:
        """Return the backbone exactly as it was given, without the hook; the heads cannot run afterwards."""
        self._hook.remove()
        return self.backbone


def freeze_all_but_classifier(backbone: nn.Module, new_layers: Collection[str] = ()) -> tuple[str, ...]:
    """Let only the classifier of a backbone learn, from zeros if it is new, and return its layers by name."""
    names = classifier_names(backbone)
    backbone.requires_grad_(requires_grad=False)
    for name in names:
        layer = backbone.get_submodule(name).requires_grad_(requires_grad=True)
        for parameter in layer.parameters() if name in new_layers else ():
            nn.init.zeros_(parameter)
    return names


@torch.no_grad()
def scale_classifier(backbone: nn.Module, factors: Sequence[float]) -> None:
    """Multiply the logits of a backbone by one factor, or by one per class, in the weights of its classifier."""
    for layer in map(backbone.get_submodule, classifier_names(backbone)):
        for weights in layer.parameters():
            of_rows = weights.new_tensor(factors).view(-1, *[1] * (weights.ndim - 1))
            weights.mul_(of_rows)


def freeze_stages(backbone: nn.Module, count: int) -> None:
    """Let only what is behind the first ``count`` stages of a backbone learn. Raises ModelError: it has no so many."""
    names = stages(backbone)
    if count > len(names):
        raise ModelError(
            f"--freeze {count}: {type(backbone).__name__} has {len(names)} stages that can be told apart; give a "
            "smaller number, none or all."
        )
    backbone.requires_grad_(requires_grad=False)
    behind(backbone, names[count - 1]).requires_grad_(requires_grad=True)


def _pool(features: Tensor, classifier: nn.Module) -> Tensor:
    """Average what a linear (B, ..., C) or convolutional (B, C, ...) classifier reads to (B, C)."""
    if features.ndim == 2:
        return features
    return features.flatten(2).mean(2) if isinstance(classifier, nn.Conv2d) else features.flatten(1, -2).mean(1)


class Aligner(Headed):
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
        loss: name in ``LOSSES``.
        temperature: of the losses with negatives.
        bias: of siglip; minus the logarithm of the number of texts that an image is compared to is a good start.
        paper_compat: compute what the official code of the paper does, for reproduction: text targets stay as they are
            where images are mixed; texts of one image are negatives of each other; over W processes the gradient of
            infonce is 1 / W of what it should be, and the other losses see only the rows of one process. The head
            starts from truncated normal weights.

    Raises:
        ModelError: the classifier layer is not found, or is neither nn.Linear nor nn.Conv2d.
        ConfigError: an unknown head or loss, or one that the official code does not have.
    """

    def __init__(
        self,
        backbone: nn.Module,
        text_width: int,
        *,
        head: Head = "linear",
        classifier: str | None = None,
        loss: str = "infonce",
        temperature: float = 0.2,
        bias: float = -10.0,
        paper_compat: bool = False,
    ) -> None:
        super().__init__(backbone, classifier)
        if loss not in LOSSES:
            raise ConfigError(f"loss {nearest(loss, LOSSES)}")
        if paper_compat and loss not in PAPER_LOSSES:
            raise ConfigError(
                f"The official code of the paper (paper_compat) has the losses {', '.join(PAPER_LOSSES)}."
            )
        self.loss, self.temperature, self.bias, self.paper_compat = loss, temperature, bias, paper_compat
        self.head = projection_head(head, self.feature_width, text_width)
        if paper_compat:  # which draws the weights of its DeiTs' heads, plain MLPs, with a smaller deviation
            for layer in (each for each in self.head.modules() if isinstance(each, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.02 if head == "mlp" else 1024**-0.5)

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """Return what the backbone returns, logits (B, K), and the image embeddings (B, D), not normalised.

        Last, if there are further ``heads``, the table of their outputs.
        """
        if getattr(self, "_is_replica", False):
            raise ModelError(
                "nn.DataParallel would compare the images of each GPU only with each other: start one process per GPU "
                "(torchrun --nproc-per-node N), or show only one GPU (CUDA_VISIBLE_DEVICES=0)."
            )
        logits, pooled = self.read(images)
        return (logits, self.head(pooled), *self.of_heads(pooled))

    def alignment_loss(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        *,
        mixing: Tensor | None = None,
        described: Tensor | None = None,
        text_ids: Tensor | None = None,
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
                text.

        Raises:
            ConfigError: tensors that do not fit.
        """
        gather = processes.gather
        if self.paper_compat:
            if self.loss == "infonce":
                # Its gathered rows keep only the gradient of the local ones, which is then averaged over processes.
                fixed = image_emb.detach()
                image_emb = gather(fixed + (image_emb - fixed) / processes.count())
                text_emb, described = gather(text_emb), None if described is None else gather(described)
            return LOSSES[self.loss](image_emb, text_emb, described=described, temperature=self.temperature)
        ids = None if text_ids is None else gather(text_ids)
        return LOSSES[self.loss](
            gather(image_emb),
            gather(text_emb),
            target=None if mixing is None else processes.gather_square(mixing),
            described=None if described is None else gather(described),
            exclude=None if ids is None else (ids[:, None] == ids) & (ids >= 0),  # a negative number is no text
            temperature=self.temperature,
            bias=self.bias,
        )


def projection_head(kind: Head, feature_width: int, text_width: int) -> nn.Module:
    """Return the projection (B, feature_width) -> (B, text_width); hidden layers are twice as wide as the text."""
    if kind == "linear":
        return nn.Linear(feature_width, text_width, bias=False)
    if kind not in get_args(Head):
        raise ConfigError(f"head {nearest(kind, get_args(Head))}")
    hidden, with_norm = 2 * text_width, kind == "mlp-bn"
    norm = [nn.BatchNorm1d(hidden)] if with_norm else []
    first = nn.Linear(feature_width, hidden, bias=not with_norm)
    return nn.Sequential(first, *norm, nn.ReLU(), nn.Linear(hidden, text_width))
