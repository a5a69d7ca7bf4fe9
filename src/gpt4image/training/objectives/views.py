"""Two views of an image are alike, and unlike those of others: SimCLR.

Legend: B images of a batch over all processes, P width of the projections.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.config.learning import ResolvedOptions
from gpt4image.config.pretraining import SIMCLR
from gpt4image.models.aligner import projection_head
from gpt4image.parallel.processes import gather
from gpt4image.training.objectives.base import Batch, Outputs

VIEWS_HEAD = "views"
"""Name of the projection head in the model."""
WIDTH = 128
"""P; the hidden layer of the head is twice as wide."""


def view_head(feature_width: int) -> torch.nn.Module:
    """Return the projection head of SimCLR's section 2.1."""
    return projection_head("mlp-bn", feature_width, WIDTH)


def nt_xent(one: Tensor, two: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """NT-Xent, equation 1 of SimCLR (Chen et al. 2020, arXiv 2002.05709), the mean over both views of all images::

        z = one and two, 2B rows of unit length;  j(i) the row of the other view of the image of row i
        term(i) = -log(exp(z[i] . z[j(i)] / t) / sum_k exp(z[i] . z[k] / t)),  k over j(i) and all rows of other images

    Args:
        one, two: (B, P) projections of the first and second views.
        ids: (B,) int64, which image each is; one that is in the batch twice is not its own negative.
        temperature: t.

    Returns:
        Scalar >= 0; about log(2B - 1) where all views are alike. 0 without an image.
    """
    if not len(one):
        return 0.0 * (one.sum() + two.sum())
    z = F.normalize(torch.cat([one, two]), dim=1)
    rows, other = torch.arange(len(z), device=z.device), len(one)
    positive = (rows + other) % len(z)
    same = ids.repeat(2)[:, None] == ids.repeat(2)
    same[rows, positive] = False
    return F.cross_entropy((z @ z.T / temperature).masked_fill(same, -torch.inf), positive)


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewsObjective:
    """SimCLR; see ``objectives.base.Objective``. The second half of a batch are second views of the first."""

    config: ResolvedOptions
    name: str = SIMCLR

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return the loss of the views of all processes; broken images take no part."""
        half = len(batch.images) // 2
        counts = gather(~batch.broken[:half])
        ids = gather(torch.from_numpy(batch.images[:half]).to(counts.device))[counts]
        one, two = (gather(_at_least_float32(view))[counts] for view in outputs.heads[VIEWS_HEAD].chunk(2))
        return nt_xent(one, two, ids, self.config.temperature)

    def weight(self, step: int, task: Tensor, own: Tensor, outputs: Outputs) -> float:
        """Return 1: other objectives are weighted against it."""
        return 1.0


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
