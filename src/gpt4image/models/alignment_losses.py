"""Alignment losses: pure functions that pull the embedding of an image to the embedding of its own description.

All of them take the same arguments, so that each option is implemented once and a loss is chosen by name (LOSSES). Item
i of a batch is an image and its description:

    image_emb, text_emb (B, D)   float; row i of both belongs to item i; need not be normalised
    target (B, B)      weight of item j in image i; identity by default. Under mixup or CutMix row i holds lam at i and
                       1 - lam at its partner, lam * eye + (1 - lam) * eye[partner]: two-target InfoNCE
    described (B,)     bool: which texts exist. One that does not is neither a positive nor a negative, whatever its row
                       holds, and an image counts by the weight of its items that have a text: without any it takes no
                       part, and its gradient is zero
    exclude (B, B)     bool: texts that are no negatives of an item (same image, equal text):
                       ids[:, None] == ids. A positive is never excluded
    temperature        of the losses with negatives; a float, or a tensor that is learned
    bias               of siglip; a float, or a tensor that is learned

They compute in float32 (float64 if given float64), under autocast too, and are 0 with zero gradient where no image has
a text. What a loss has no use for changes nothing. Raised: ConfigError for shapes that do not fit or a temperature that
is not positive. With

    W[i, j]         = target[i, j] * described[j]           weight of text j for image i
    candidate(i, j) = image i takes part, text j exists, and its item is in image i or it is excluded for no item in i

the losses are weighted means of terms over pairs:  loss = sum_ij W[i, j] * term(i, j) / sum_ij W[i, j].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.base.errors import ConfigError
from gpt4image.config.learning import LossName

AlignmentLoss = Callable[..., Tensor]


class Options(TypedDict, total=False):
    """Arguments that all losses share: see the module."""

    target: Tensor | None
    described: Tensor | None
    exclude: Tensor | None
    temperature: float | Tensor
    bias: float | Tensor


def info_nce(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Symmetric InfoNCE: each image finds its text among the texts, each text its image among the images.

    GPT4Image (arXiv 2306.00693), ``clip`` in its official code, which uses temperature 0.2 (ResNet) and 0.05 (DeiT);
    the form of CLIP (arXiv 2103.00020, figure 3) where no option is used::

        s[i, j] = cos(image_emb[i], text_emb[j]) / temperature
        image_to_text(i, j) = -log(exp(s[i, j]) / sum(exp(s[i, k]) for text k where candidate(i, k)))
        text_to_image(i, j) = -log(exp(s[i, j]) / sum(exp(s[k, j]) for image k where candidate(k, j)))
        term(i, j) = (image_to_text(i, j) + text_to_image(i, j)) / 2

    Returns a scalar in [0, log B + 2 / temperature]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    logits = pairs.logits()
    return (_cross_entropy(logits, pairs.weights, dim=1) + _cross_entropy(logits, pairs.weights, dim=0)) / 2


def info_nce_one_way(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """InfoNCE only from image to text: each image finds its text among the texts.

    ``ctr`` in the official code of GPT4Image (arXiv 2306.00693); InfoNCE is equation 4 of arXiv 1807.03748::

        term(i, j) = image_to_text(i, j)            # of info_nce

    Returns a scalar in [0, log B + 2 / temperature]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    return _cross_entropy(pairs.logits(), pairs.weights, dim=1)


def siglip(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Sigmoid loss: each pair on its own is classified as right or wrong.

    SigLIP (arXiv 2303.15343, algorithm 1), which starts with temperature 0.1 and bias -10 and learns both. Its bias is
    about the log odds that a pair is right among the texts of its batches, -log(32768): set it by yours::

        l[i, j] = cos(image_emb[i], text_emb[j]) / temperature + bias
        m[i] = sum_j W[i, j]                                    # 1, or less where an item of a mixed image has no text
        loss = sum(W[i, j] * -log sigmoid(l[i, j]) + (m[i] - W[i, j]) * -log sigmoid(-l[i, j])
                   for image i, text j where candidate(i, j)) / sum(m)

    Returns a scalar >= 0. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    logits, right = pairs.scores / pairs.temperature + pairs.bias, pairs.weights
    mass = right.sum(dim=1)
    wrong = (mass[:, None] - right).clamp_min(0.0) * pairs.candidates
    # Not softplus, which torch replaces by a line above 20: its gradient is off by 1e-9 there.
    total = -(right * F.logsigmoid(logits) + wrong * F.logsigmoid(-logits)).sum()
    return total / mass.sum().clamp_min(torch.finfo(total.dtype).tiny)


def cosine(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Squared distance of the unit vectors of an image and its text; there are no negatives.

    ``byol`` in the official code of GPT4Image (arXiv 2306.00693); equation 2 of BYOL (arXiv 2006.07733)::

        term(i, j) = 2 - 2 * cos(image_emb[i], text_emb[j])

    Returns a scalar in [0, 4]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    return _weighted_mean(2 - 2 * pairs.scores, pairs.weights)


LOSSES: dict[str, AlignmentLoss] = dict(
    zip(get_args(LossName), (info_nce, info_nce_one_way, siglip, cosine), strict=True)
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """What a loss needs to know of its pairs: cosines (B, B), W and candidates, in the words of the module."""

    scores: Tensor
    weights: Tensor
    candidates: Tensor
    temperature: float | Tensor
    bias: float | Tensor

    def logits(self) -> Tensor:
        """Return scores / temperature, the lowest finite number where there is no candidate: -inf would give NaN."""
        logits = self.scores / self.temperature
        return logits.masked_fill(~self.candidates, torch.finfo(logits.dtype).min)


def _pairs(
    image_emb: Tensor,
    text_emb: Tensor,
    *,
    target: Tensor | None = None,
    described: Tensor | None = None,
    exclude: Tensor | None = None,
    temperature: float | Tensor = 0.2,
    bias: float | Tensor = -10.0,
) -> _Pairs:
    size, device = len(image_emb), image_emb.device
    if image_emb.ndim != 2 or image_emb.shape != text_emb.shape:
        raise ConfigError(
            f"image_emb is {tuple(image_emb.shape)} and text_emb is {tuple(text_emb.shape)}: both need the shape "
            "(B, D). Is the projection head as wide as the text embeddings (Aligner(..., text_width=D))?"
        )
    square = (size, size)
    for name, given, shape in (
        ("target", target, square),
        ("described", described, (size,)),
        ("exclude", exclude, square),
    ):
        if given is not None and tuple(given.shape) != shape:
            raise ConfigError(f"{name} is {tuple(given.shape)}: here it needs the shape {shape}.")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ConfigError(f"temperature = {temperature}: it must be positive; the paper uses 0.2 and 0.05.")

    dtype = torch.promote_types(torch.promote_types(image_emb.dtype, text_emb.dtype), torch.float32)
    image_emb, text_emb = image_emb.to(dtype), text_emb.to(dtype)
    if described is None:
        described = torch.ones(size, dtype=torch.bool, device=device)
    else:
        text_emb = text_emb.masked_fill(~described[:, None], 0.0)  # whatever stands there, NaN too, must not leak
    weights = torch.eye(size, dtype=dtype, device=device) if target is None else target.to(dtype)
    if target is not None and exclude is not None:
        exclude = _dot((weights > 0).to(dtype), exclude.to(dtype)) > 0
    weights = weights * described
    candidates = (weights > 0).any(dim=1, keepdim=True) & described
    if exclude is not None:
        candidates = candidates & ((weights > 0) | ~exclude)
    scores = _dot(F.normalize(image_emb, dim=1), F.normalize(text_emb, dim=1).T)
    return _Pairs(scores=scores, weights=weights, candidates=candidates, temperature=temperature, bias=bias)


def _cross_entropy(logits: Tensor, weights: Tensor, dim: int) -> Tensor:
    return _weighted_mean(-logits.log_softmax(dim), weights)


def _weighted_mean(terms: Tensor, weights: Tensor) -> Tensor:
    return (weights * terms).sum() / weights.sum().clamp_min(torch.finfo(terms.dtype).tiny)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right in their own precision, under autocast too."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right
