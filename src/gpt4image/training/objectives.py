"""What a run learns besides its task: ``total = task + sum of weight * objective``.

A new objective is one function here and one line in ``trainer.build``.

Legend: B images of a batch, U of them with a second view, K outputs, D width of the text space, P of projections.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gpt4image.config.learning import SIMCLR
from gpt4image.models.aligner import Aligner
from gpt4image.parallel.processes import gather
from gpt4image.training.training_data import TextTargets

VIEWS_HEAD = "views"
"""Name of the projection head of SimCLR, of its section 2.1, in the model."""
VIEWS_WIDTH = 128
"""P; the hidden layer of the head is twice as wide."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The B images of one batch of this process; where all have two views, B is twice their number, first views first.

    ``images`` are positions in the dataset, ``broken`` which could not be decoded. Row i of ``mixing``, (B, B), holds
    the weights of the images that image i is made of; ``second``, (U,), are the rows that have a second view.
    """

    images: NDArray[np.int64]
    broken: Tensor
    mixing: Tensor | None
    second: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What the model returns for a batch: (B, K) for the ``task``, (U, K) for ``second`` views, (B, D) ``embeddings``
    of images, and by name the outputs of ``heads`` (B + U, ...).
    """

    task: Tensor
    second: Tensor
    embeddings: Tensor | None = None
    heads: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """A term of the loss, ``NAME_loss`` in records; ``loss`` is an unweighted scalar, the same on all processes."""

    name: str
    weight: float
    loss: Callable[[Batch, Outputs], Tensor]


def alignment(text: TextTargets, aligner: Aligner, weight: float) -> Objective:
    """Return the paper's objective: features near the embedding of the image's own description (arXiv 2306.00693)."""

    def loss(batch: Batch, outputs: Outputs) -> Tensor:
        if outputs.embeddings is None:
            raise ValueError("alignment needs a projection head")
        texts, described, text_ids = (part.to(outputs.embeddings.device) for part in text.take(batch.images))
        return aligner.alignment_loss(
            outputs.embeddings, texts, mixing=batch.mixing, described=described & ~batch.broken, text_ids=text_ids
        )

    return Objective(name="align", weight=weight, loss=loss)


def consistency(weight: float, confidence: float, smoothing: float) -> Objective:
    """Return FixMatch (arXiv 2001.07685); ``confidence`` is a share of what label ``smoothing`` lets be taught."""

    def loss(batch: Batch, outputs: Outputs) -> Tensor:
        surest = 1 - smoothing + smoothing / outputs.task.shape[1]
        weak, counts = outputs.task[batch.second], ~batch.broken[batch.second]
        return consistency_loss(weak, outputs.second, counts, confidence * surest)

    return Objective(name="consistency", weight=weight, loss=loss)


def consistency_loss(weak: Tensor, strong: Tensor, counts: Tensor, confidence: float) -> Tensor:
    """Train the strong view of an image to the class that the model is sure of in the weak view; equation 4 of
    FixMatch::

        q = softmax(weak[i])                                  # no gradient
        term(i) = -log softmax(strong[i])[argmax(q)]  if max(q) >= confidence else 0

    ``weak`` and ``strong`` are (U, K) logits. The mean is over the images that count on all processes, sure or not: a
    scalar in float32 or better, the same everywhere; 0 where none counts.
    """
    weak, strong = (_at_least_float32(logits) for logits in (weak.detach(), strong))
    probability, label = weak.softmax(dim=1).max(dim=1)
    sure = counts & (probability >= confidence)
    total = (F.cross_entropy(strong, label, reduction="none") * sure).sum()
    number = counts.sum().to(total.dtype)
    return gather(total[None]).sum() / gather(number[None]).sum().clamp(min=1)


def views(temperature: float) -> Objective:
    """Return SimCLR; the second half of a batch are second views of the first, broken images take no part."""

    def loss(batch: Batch, outputs: Outputs) -> Tensor:
        half = len(batch.images) // 2
        counts = gather(~batch.broken[:half])
        ids = gather(torch.from_numpy(batch.images[:half]).to(counts.device))[counts]
        one, two = (gather(_at_least_float32(view))[counts] for view in outputs.heads[VIEWS_HEAD].chunk(2))
        return nt_xent(one, two, ids, temperature)

    return Objective(name=SIMCLR, weight=1.0, loss=loss)


def nt_xent(one: Tensor, two: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """NT-Xent, equation 1 of SimCLR (Chen et al. 2020, arXiv 2002.05709), the mean over both views of all images::

        z = one and two, 2B rows of unit length;  j(i) the row of the other view of the image of row i
        term(i) = -log(exp(z[i] . z[j(i)] / t) / sum_k exp(z[i] . z[k] / t)),  k over j(i) and all rows of other images

    ``one`` and ``two`` are (B, P) projections; an image that is in the batch twice by its ``ids`` is not its own
    negative.
    """
    if not len(one):
        return 0.0 * (one.sum() + two.sum())
    z = F.normalize(torch.cat([one, two]), dim=1)
    rows, other = torch.arange(len(z), device=z.device), len(one)
    positive = (rows + other) % len(z)
    same = ids.repeat(2)[:, None] == ids.repeat(2)
    same[rows, positive] = False
    return F.cross_entropy((z @ z.T / temperature).masked_fill(same, -torch.inf), positive)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
