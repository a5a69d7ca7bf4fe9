"""Alignment losses: pure functions that pull the embedding of an image to the embedding of its own description.

All of them take the same arguments, so that each option is implemented once and a loss is chosen by name (LOSSES). Item
i of a batch is an image and its description; texts beyond the batch (of other images, M > B) are further candidates:

    image_emb (B, D), text_emb (M, D)    float, M >= B; row i of both belongs to item i; need not be normalised
    target (B, B)      weight of item j in image i; identity by default. Under mixup or CutMix row i holds lam at i and
                       1 - lam at its partner, lam * eye + (1 - lam) * eye[partner]: two-target InfoNCE
    described (M,)     bool: which texts exist. One that does not is neither a positive nor a negative, whatever its row
                       holds, and an image counts by the weight of its items that have a text: without any it takes no
                       part, and its gradient is zero
    exclude (B, M)     bool: texts that are no negatives of an item (same image, equal text, same class):
                       ids[:B, None] == ids. A positive is never excluded
    positive (B, M)    bool: texts that are as right for an item as its own (of the same class); they share its weight
    temperature        of the losses with negatives; a float, or a tensor that is learned
    bias               of siglip; a float, or a tensor that is learned
    normalise          whether the losses with negatives compare directions (cosine) or, if False, take dot products

They compute in float32 (float64 if given float64), under autocast too, and are 0 with zero gradient where no image has
a text. What a loss has no use for changes nothing. Raised: ConfigError for shapes that do not fit or a temperature that
is not positive. With

    right[b, j]   = described[b] and described[j] and (b == j or positive[b, j])        texts that are right for item b
    W[i, j]       = sum_b target[i, b] * right[b, j] / sum_k right[b, k]                weight of text j for image i
    candidate(i, j) = image i takes part, text j exists, and it is right for an item in image i or excluded for none

most of them are a weighted mean of terms over pairs:  loss = sum_ij W[i, j] * term(i, j) / sum_ij W[i, j].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.base.errors import ConfigError

AlignmentLoss = Callable[..., Tensor]


class Options(TypedDict, total=False):
    """Arguments that all losses share: see the module."""

    target: Tensor | None
    described: Tensor | None
    exclude: Tensor | None
    positive: Tensor | None
    temperature: float | Tensor
    bias: float | Tensor
    normalise: bool


def info_nce(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Symmetric InfoNCE: each image finds its text among the texts, each text its image among the images.

    GPT4Image (arXiv 2306.00693), ``clip`` in its official code, which uses temperature 0.2 (ResNet) and 0.05 (DeiT);
    the form of CLIP (arXiv 2103.00020, figure 3) where no option is used::

        s[i, j] = cos(image_emb[i], text_emb[j]) / temperature
        image_to_text(i, j) = -log(exp(s[i, j]) / sum(exp(s[i, k]) for text k where candidate(i, k)))
        text_to_image(i, j) = -log(exp(s[i, j]) / sum(exp(s[k, j]) for image k where candidate(k, j)))
        term(i, j) = (image_to_text(i, j) + text_to_image(i, j)) / 2

    Returns a scalar in [0, log M + 2 / temperature]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    return _both_ways(pairs.logits(), pairs.weights)


def info_nce_one_way(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """InfoNCE from image to text alone: each image finds its text among the texts.

    ``ctr`` in the official code of GPT4Image (arXiv 2306.00693); InfoNCE is equation 4 of arXiv 1807.03748::

        term(i, j) = image_to_text(i, j)            # of info_nce

    Returns a scalar in [0, log M + 2 / temperature]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    return _cross_entropy(pairs.logits(), pairs.weights, dim=1)


def supcon(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Supervised contrast: each image finds all texts of its class, which ``positive`` names, among the texts.

    L_out of arXiv 2004.11362, equation 2, with an image as anchor and texts as contrast: the mean over the positives is
    outside the logarithm, and the other positives stand in the denominator::

        term(i, j) = image_to_text(i, j)            # of info_nce

    It is ``info_nce_one_way`` under the name that says what ``positive`` is for; without it, own texts alone are right.
    Returns a scalar in [0, log M + 2 / temperature]. Arguments and errors: see the module.
    """
    return info_nce_one_way(image_emb, text_emb, **options)


def soft_info_nce(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Symmetric InfoNCE in which texts like an image's own are partly right: similarities of texts are soft labels.

    After SoftCLIP (arXiv 2303.17561, section 3.2: targets from similarities within a modality)::

        soft[b, j] = softmax over texts j of cos(text_emb[b], text_emb[j]) / temperature      # mean of right texts of b
        Q[i, j] = sum_b target[i, b] * soft[b, j] where candidate(i, j), scaled so that sum_j Q[i, j] = sum_j W[i, j]
        loss = info_nce with Q in place of W

    No gradient flows through Q. Returns a scalar in [0, log M + 2 / temperature]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    with torch.no_grad():
        anchors = F.normalize(_dot(pairs.share, pairs.texts), dim=1)
        scores = _dot(anchors, pairs.texts.T) / pairs.temperature
        soft = scores.masked_fill(~pairs.described, torch.finfo(scores.dtype).min).softmax(dim=1)
        soft = pairs.mix(soft * pairs.described[: len(soft), None]) * pairs.candidates
        soft = soft * (pairs.mass / soft.sum(dim=1).clamp_min(torch.finfo(soft.dtype).tiny))[:, None]
    return _both_ways(pairs.logits(), soft)


def siglip(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Sigmoid loss: each pair on its own is told to be right or wrong.

    SigLIP (arXiv 2303.15343, algorithm 1), which starts with temperature 0.1 and bias -10 and learns both. Its bias is
    about the log odds that a pair is right among the texts of its batches, -log(32768): set it by yours::

        l[i, j] = cos(image_emb[i], text_emb[j]) / temperature + bias
        m[i] = sum_j W[i, j]                                    # 1, or less where an item of a mixed image has no text
        y[i, j] = sum_b target[i, b] * right[b, j]
        loss = sum(y[i, j] * -log sigmoid(l[i, j]) + (m[i] - y[i, j]) * -log sigmoid(-l[i, j])
                   for image i, text j where candidate(i, j)) / sum(m)

    Returns a scalar >= 0. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    logits = pairs.scores() / pairs.temperature + pairs.bias
    right = pairs.mix(pairs.right.to(logits.dtype))
    wrong = (pairs.mass[:, None] - right).clamp_min(0.0) * pairs.candidates
    total = (right * F.softplus(-logits) + wrong * F.softplus(logits)).sum()
    return total / pairs.mass.sum().clamp_min(torch.finfo(total.dtype).tiny)


def cosine(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Squared distance of the unit vectors of an image and its text; there are no negatives.

    ``byol`` in the official code of GPT4Image (arXiv 2306.00693); equation 2 of BYOL (arXiv 2006.07733)::

        term(i, j) = 2 - 2 * cos(image_emb[i], text_emb[j])

    Returns a scalar in [0, 4]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    return _weighted_mean(2 - 2 * _dot(pairs.images, pairs.texts.T), pairs.weights)


def smooth_l1(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Smooth L1 distance (arXiv 1504.08083, equation 3) of the directions of an image and its text; no negatives.

    Components of unit vectors are about 1 / sqrt(D), far inside the quadratic part; so they are scaled to about 1, and
    large differences count by their size alone::

        d[c] = sqrt(D) * (image_emb[i] / |image_emb[i]| - text_emb[j] / |text_emb[j]|)[c]
        term(i, j) = mean over components c of (d[c]**2 / 2 if |d[c]| < 1 else |d[c]| - 1/2)

    Returns a scalar in [0, 2]. Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    i, j = pairs.weights.nonzero(as_tuple=True)
    scale = pairs.images.shape[1] ** 0.5
    terms = F.smooth_l1_loss(scale * pairs.images[i], scale * pairs.texts[j], reduction="none").mean(dim=1)
    return _weighted_mean(terms, pairs.weights[i, j])


def relational(image_emb: Tensor, text_emb: Tensor, **options: Unpack[Options]) -> Tensor:
    """Similarity distillation: images shall be as like each other as their texts are.

    Similarity-preserving distillation (arXiv 1907.09682, equation 4) with cosines in place of rows of unit length, so
    that it does not depend on the size of the batch::

        t[i] = sum_j W[i, j] * text_emb[j] / |text_emb[j]|       # no gradient: the texts teach
        m[i] = sum_j W[i, j]
        term(i, k) = (cos(image_emb[i], image_emb[k]) - cos(t[i], t[k]))**2
        loss = mean, with weight m[i] * m[k], over images i != k of which no item in k is excluded for an item in i

    Texts beyond the batch have no image and take part through ``positive`` alone. Returns a scalar in [0, 4].
    Arguments and errors: see the module.
    """
    pairs = _pairs(image_emb, text_emb, **options)
    texts = F.normalize(_dot(pairs.weights, pairs.texts), dim=1).detach()
    between = pairs.mass[:, None] * pairs.mass * ~torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    if pairs.excluded is not None:
        excluded = pairs.excluded[:, : len(texts)].to(texts.dtype)
        between = between * (pairs.mix(excluded.T) == 0).T
    gap = _dot(pairs.images, pairs.images.T) - _dot(texts, texts.T)
    return _weighted_mean(gap**2, between)


LOSSES: dict[str, AlignmentLoss] = {
    "infonce": info_nce,
    "infonce-one-way": info_nce_one_way,
    "supcon": supcon,
    "soft-infonce": soft_info_nce,
    "siglip": siglip,
    "cosine": cosine,
    "smooth-l1": smooth_l1,
    "relational": relational,
}
WITH_NEGATIVES = frozenset({"infonce", "infonce-one-way", "supcon", "soft-infonce", "siglip"})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """What a loss needs to know of its pairs; the words are those of the module.

    Attributes:
        image_emb, text_emb: as given, in the precision of the loss; texts that do not exist are zero.
        images, texts: the same as unit vectors.
        target: (B, B), or None for the identity.
        described: (M,) bool.
        right: (B, M) bool; share: the same divided by its sums over rows.
        weights: (B, M), W.
        excluded: (B, M) bool, for an item in image i; or None.
        candidates: (B, M) bool.
    """

    image_emb: Tensor
    text_emb: Tensor
    images: Tensor
    texts: Tensor
    target: Tensor | None
    described: Tensor
    right: Tensor
    share: Tensor
    weights: Tensor
    excluded: Tensor | None
    candidates: Tensor
    temperature: float | Tensor
    bias: float | Tensor
    normalise: bool

    @property
    def mass(self) -> Tensor:
        """(B,) weight of each image, in 0..1."""
        return self.weights.sum(dim=1)

    def mix(self, of_items: Tensor) -> Tensor:
        """Return (B, ...) of images from the same of items."""
        return of_items if self.target is None else _dot(self.target, of_items)

    def scores(self) -> Tensor:
        """Return (B, M) cosines, or dot products where asked for."""
        if self.normalise:
            return _dot(self.images, self.texts.T)
        return _dot(self.image_emb, self.text_emb.T)

    def logits(self) -> Tensor:
        """Return scores / temperature with pairs that are no candidates at the lowest finite number.

        Finite, because a row without any candidate would be NaN with -inf, and 0 * NaN is NaN.
        """
        logits = self.scores() / self.temperature
        return logits.masked_fill(~self.candidates, torch.finfo(logits.dtype).min)


def _pairs(  # noqa: PLR0913 (the one place where all options are named)
    image_emb: Tensor,
    text_emb: Tensor,
    *,
    target: Tensor | None = None,
    described: Tensor | None = None,
    exclude: Tensor | None = None,
    positive: Tensor | None = None,
    temperature: float | Tensor = 0.2,
    bias: float | Tensor = -10.0,
    normalise: bool = True,
) -> _Pairs:
    size, count = len(image_emb), len(text_emb)
    if image_emb.ndim != 2 or text_emb.ndim != 2 or image_emb.shape[1] != text_emb.shape[1] or count < size:
        raise ConfigError(
            f"image_emb is {tuple(image_emb.shape)} and text_emb is {tuple(text_emb.shape)}: they need the shapes "
            "(B, D) and (M, D), M >= B. Is the projection head as wide as the text embeddings (Aligner(..., "
            "text_width=D))?"
        )
    _check_shape("target", target, (size, size))
    _check_shape("described", described, (count,))
    _check_shape("exclude", exclude, (size, count))
    _check_shape("positive", positive, (size, count))
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ConfigError(f"temperature = {temperature}: it must be positive; the paper uses 0.2 and 0.05.")

    dtype = torch.promote_types(torch.promote_types(image_emb.dtype, text_emb.dtype), torch.float32)
    image_emb, text_emb = image_emb.to(dtype), text_emb.to(dtype)
    right = torch.eye(size, count, dtype=torch.bool, device=image_emb.device)
    if positive is not None:
        right = right | positive
    if described is None:
        described = torch.ones(count, dtype=torch.bool, device=image_emb.device)
    else:
        text_emb = text_emb.masked_fill(~described[:, None], 0.0)  # whatever stands there, NaN too, must not leak
        right = right & described & described[:size, None]
    share = right.to(dtype)
    if positive is not None:
        share = share / right.sum(dim=1, keepdim=True).clamp_min(1)
    weights, excluded = share, exclude
    if target is not None:
        target = target.to(dtype)
        weights = _dot(target, share)
        excluded = None if exclude is None else _dot((target > 0).to(dtype), exclude.to(dtype)) > 0
    candidates = (weights > 0).any(dim=1, keepdim=True) & described
    if excluded is not None:
        candidates = candidates & ((weights > 0) | ~excluded)
    return _Pairs(
        image_emb=image_emb,
        text_emb=text_emb,
        images=F.normalize(image_emb, dim=1),
        texts=F.normalize(text_emb, dim=1),
        target=target,
        described=described,
        right=right,
        share=share,
        weights=weights,
        excluded=excluded,
        candidates=candidates,
        temperature=temperature,
        bias=bias,
        normalise=normalise,
    )


def _both_ways(logits: Tensor, weights: Tensor) -> Tensor:
    return (_cross_entropy(logits, weights, dim=1) + _cross_entropy(logits, weights, dim=0)) / 2


def _cross_entropy(logits: Tensor, weights: Tensor, dim: int) -> Tensor:
    return _weighted_mean(-logits.log_softmax(dim), weights)


def _weighted_mean(terms: Tensor, weights: Tensor) -> Tensor:
    return (weights * terms).sum() / weights.sum().clamp_min(torch.finfo(terms.dtype).tiny)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right in their own precision, under autocast too."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def _check_shape(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != shape:
        raise ConfigError(f"{name} is {tuple(tensor.shape)}: here it needs the shape {shape}.")
