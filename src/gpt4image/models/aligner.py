"""The aligner: lets any backbone learn from text while its own code stays as it is.

It reads the pooled feature with a hook on the classifier: no subclass and no wrapper in the saved weights, so the
deployed model is the one that was named.
"""

from __future__ import annotations

from typing import Any, Literal, Unpack, get_args

from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, ModelError, nearest
from gpt4image.models.alignment import Alignment, AlignmentOptions
from gpt4image.models.feature_heads import Tapped

Head = Literal["linear", "mlp", "mlp-bn"]


class Aligner(Tapped):
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
        super().__init__(backbone, classifier)
        self.alignment = Alignment(**options)
        self.head = projection_head(head, self.feature_width, text_width)
        if self.alignment.paper_compat:
            _start_as_in_the_paper(self.head)
        self.texts = texts

    def forward(self, images: Tensor, *, with_features: bool = False, texts: Any = None) -> tuple[Any, ...]:
        """Return what the backbone returns, logits (B, K), and the image embeddings (B, D), not normalised.

        With ``with_features`` also what classifier and head read, (B, C) in most models: see ``gradient_ratio``. With
        ``texts`` also the text embeddings (B, D) that the text encoder makes of them. Last, if there are further
        ``heads``, the table of their outputs.
        """
        if getattr(self, "_is_replica", False):
            raise ModelError(
                "nn.DataParallel would compare the images of each GPU only with each other: start one process per GPU "
                "(torchrun --nproc-per-node N), or show only one GPU (CUDA_VISIBLE_DEVICES=0)."
            )
        logits, features, pooled = self.read(images)
        image_emb = self.head(pooled)
        found = (logits, image_emb, features) if with_features else (logits, image_emb)
        found = found if self.texts is None or texts is None else (*found, self.texts(texts))
        return (*found, *self.of_heads(pooled))

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not to decay: what the backbone says, and the loss's own."""
        return {"alignment.log_scale", "alignment.bias"} | super().no_weight_decay()

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
        return self.alignment(image_emb, text_emb, mixing=mixing, described=described, text_ids=text_ids)


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
