"""Alignment losses: pure functions that pull the embedding of an image to the embedding of its own description.

All of them take the same arguments, so that each option is implemented once and a loss is chosen by name (LOSSES):

    image_emb (B, D), text_emb (B, D)    float; row i of both belongs to item i; need not be normalised
    target (B, B)      weight of text j as a positive of image i; identity by default. Under mixup or CutMix row i holds
                       lam at i and 1 - lam at its partner, lam * eye + (1 - lam) * eye[partner]: two-target InfoNCE
    described (B,)     bool: which texts exist. One that does not is neither a positive nor a negative, whatever its row
                       holds, and an image counts by the weight of its texts that exist: without any it takes no part
    exclude (B, B)     bool: pairs that are no negatives (one image drawn twice, equal texts): ids[:, None] == ids.
                       A positive is never excluded

They compute in float32 (float64 if given float64), under autocast too, and are 0 with zero gradient where no image has
a text. Each is a weighted mean: with W[i, j] = target[i, j] * described[j],

    loss = sum_ij W[i, j] * term(i, j) / sum_ij W[i, j]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.errors import ConfigError

AlignmentLoss = Callable[..., Tensor]


def info_nce(
    image_emb: Tensor,
    text_emb: Tensor,
    *,
    target: Tensor | None = None,
    described: Tensor | None = None,
    exclude: Tensor | None = None,
    temperature: float = 0.2,
) -> Tensor:
    """Symmetric InfoNCE: each image finds its text among the texts, each text its image among the images.

    GPT4Image (arXiv 2306.00693), ``clip`` in its official code, which uses temperature 0.2 (ResNet) and 0.05 (DeiT);
    the form of CLIP (arXiv 2103.00020, figure 3) where no option is used::

        s[i, j] = cos(image_emb[i], text_emb[j]) / temperature
        for image i with a text:
            for text j that exists:                          # candidates(i), candidates(j): pairs not excluded
                image_to_text = -log(exp(s[i, j]) / sum(exp(s[i, k]) for text k in candidates(i)))
                text_to_image = -log(exp(s[i, j]) / sum(exp(s[k, j]) for image k in candidates(j)))
                term(i, j) = (image_to_text + text_to_image) / 2

    Returns a scalar in [0, log B + 2 / temperature]. Arguments: see the module.
    Raises ConfigError for shapes that do not fit or a temperature that is not positive.
    """
    similarity, weights = _pair(image_emb, text_emb, target, described)
    logits = _candidate_logits(similarity, weights, described, exclude, temperature)
    return (_cross_entropy(logits, weights, dim=1) + _cross_entropy(logits, weights, dim=0)) / 2


def info_nce_one_way(
    image_emb: Tensor,
    text_emb: Tensor,
    *,
    target: Tensor | None = None,
    described: Tensor | None = None,
    exclude: Tensor | None = None,
    temperature: float = 0.2,
) -> Tensor:
    """InfoNCE from image to text alone: each image finds its text among the texts.

    ``ctr`` in the official code of GPT4Image (arXiv 2306.00693); InfoNCE is equation 4 of arXiv 1807.03748::

        s[i, j] = cos(image_emb[i], text_emb[j]) / temperature
        for image i with a text:
            for text j that exists:
                term(i, j) = -log(exp(s[i, j]) / sum(exp(s[i, k]) for text k not excluded for i))

    Returns a scalar in [0, log B + 2 / temperature]. Arguments: see the module.
    Raises ConfigError for shapes that do not fit or a temperature that is not positive.
    """
    similarity, weights = _pair(image_emb, text_emb, target, described)
    return _cross_entropy(_candidate_logits(similarity, weights, described, exclude, temperature), weights, dim=1)


def cosine(
    image_emb: Tensor,
    text_emb: Tensor,
    *,
    target: Tensor | None = None,
    described: Tensor | None = None,
    exclude: Tensor | None = None,
    temperature: float = 0.2,
) -> Tensor:
    """Squared distance of the unit vectors of an image and its text; there are no negatives.

    ``byol`` in the official code of GPT4Image (arXiv 2306.00693); equation 2 of BYOL (arXiv 2006.07733)::

        for image i with a text:
            for text j that exists:
                term(i, j) = 2 - 2 * cos(image_emb[i], text_emb[j])

    Returns a scalar in [0, 4]. Arguments: see the module; ``exclude`` and ``temperature`` concern negatives and change
    nothing here. Raises ConfigError for shapes that do not fit.
    """
    similarity, weights = _pair(image_emb, text_emb, target, described)
    return _weighted_mean(2 - 2 * similarity, weights)


LOSSES: dict[str, AlignmentLoss] = {"infonce": info_nce, "infonce-one-way": info_nce_one_way, "cosine": cosine}


def _pair(
    image_emb: Tensor, text_emb: Tensor, target: Tensor | None, described: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the cosine similarities and the weights of all pairs, both (B, B) in float32 or float64."""
    if image_emb.ndim != 2 or image_emb.shape != text_emb.shape:
        raise ConfigError(
            f"image_emb is {tuple(image_emb.shape)} and text_emb is {tuple(text_emb.shape)}: both need one shape "
            "(B, D). Is the projection head as wide as the text embeddings (Aligner(..., text_width=D))?"
        )
    size = len(image_emb)
    _check_shape("target", target, (size, size))
    _check_shape("described", described, (size,))

    dtype = torch.promote_types(torch.promote_types(image_emb.dtype, text_emb.dtype), torch.float32)
    weights = torch.eye(size, dtype=dtype, device=image_emb.device) if target is None else target.to(dtype)
    if described is not None:
        text_emb = text_emb.masked_fill(~described[:, None], 0.0)  # whatever stands there, NaN too, must not leak
        weights = weights * described
    with torch.autocast(image_emb.device.type, enabled=False):
        similarity = F.normalize(image_emb.to(dtype), dim=1) @ F.normalize(text_emb.to(dtype), dim=1).T
    return similarity, weights


def _candidate_logits(
    similarity: Tensor, weights: Tensor, described: Tensor | None, exclude: Tensor | None, temperature: float
) -> Tensor:
    """Return similarity / temperature (B, B) with pairs that are no candidates at the lowest finite number.

    Finite, because a row without any candidate would be NaN with -inf, and 0 * NaN is NaN.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature = {temperature}: it must be positive; the paper uses 0.2 and 0.05.")
    _check_shape("exclude", exclude, tuple(similarity.shape))
    logits = similarity / temperature
    positive = weights > 0
    candidates = positive.any(dim=1, keepdim=True)
    if described is not None:
        candidates = candidates & described
    if exclude is not None:
        candidates = candidates & (positive | ~exclude)
    return logits.masked_fill(~candidates, torch.finfo(logits.dtype).min)


def _cross_entropy(logits: Tensor, weights: Tensor, dim: int) -> Tensor:
    return _weighted_mean(-logits.log_softmax(dim), weights)


def _weighted_mean(terms: Tensor, weights: Tensor) -> Tensor:
    return (weights * terms).sum() / weights.sum().clamp_min(torch.finfo(terms.dtype).tiny)


def _check_shape(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != shape:
        raise ConfigError(f"{name} is {tuple(tensor.shape)}: for a batch of {shape[0]} it needs the shape {shape}.")
