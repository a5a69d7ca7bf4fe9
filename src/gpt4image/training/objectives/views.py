"""Two views of an image are alike, and unlike those of others: SimCLR and VICReg.

Legend: B images of a batch over all processes, P width of the projections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4image.config.learning import ResolvedOptions
from gpt4image.models.aligner import projection_head
from gpt4image.parallel.processes import gather
from gpt4image.training.objectives.base import Batch, Outputs

VIEWS_HEAD = "views"
"""Name of the projection head in the model."""
WIDTHS: Mapping[str, int] = {"simclr": 128, "vicreg": 1024}
"""P; the hidden layer of the head is twice as wide."""


def view_head(objective: str, feature_width: int) -> torch.nn.Module:
    """Return the projection head of an objective (SimCLR's section 2.1, VICReg's expander with one layer less)."""
    return projection_head("mlp-bn", feature_width, WIDTHS[objective])


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


def vicreg(one: Tensor, two: Tensor) -> Tensor:
    """Variance, invariance and covariance, equations 1 to 6 of VICReg (Bardes et al. 2022, arXiv 2105.04906)::

        invariance = mean squared distance of one[i] and two[i], over rows and columns
        variance   = for each view, mean over columns of max(0, 1 - sqrt(var(column) + 1e-4))
        covariance = for each view, sum of squared covariances of two different columns, over P
        loss       = invariance + (variance of both) / 2 + (covariance of both) / 25

    The paper weights them 25, 25 and 1; here the whole is a 25th of that, so that it goes with other objectives. Its
    code, as ours, halves the sum of the variances.

    Args:
        one, two: (B, P) projections of the first and second views.

    Returns:
        Scalar >= 0; about 1 where all projections are equal. 0 for fewer than two images.
    """
    if len(one) < 2:
        return 0.0 * (one.sum() + two.sum())
    loss = F.mse_loss(one, two)
    for view in (one, two):
        centred = view - view.mean(dim=0)
        loss = loss + F.relu(1 - (view.var(dim=0) + 1e-4).sqrt()).mean() / 2
        covariance = centred.T @ centred / (len(view) - 1)
        off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + off_diagonal / view.shape[1] / 25
    return loss


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewsObjective:
    """SimCLR or VICReg; see ``objectives.base.Objective``. The second half of a batch are second views of the first."""

    config: ResolvedOptions
    name: str

    def loss(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Return the loss of the views of all processes; broken images take no part."""
        half = len(batch.images) // 2
        counts = gather(~batch.broken[:half])
        ids = gather(torch.from_numpy(batch.images[:half]).to(counts.device))[counts]
        one, two = (gather(_at_least_float32(view))[counts] for view in outputs.heads[VIEWS_HEAD].chunk(2))
        losses: Mapping[str, Callable[[], Tensor]] = {
            "simclr": lambda: nt_xent(one, two, ids, self.config.temperature),
            "vicreg": lambda: vicreg(one, two),
        }
        return losses[self.name]()

    def weight(self, step: int, task: Tensor, own: Tensor, outputs: Outputs) -> float:
        """Return 1: other objectives are weighted against it."""
        return 1.0


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
