"""How the task and the alignment are weighted against each other in the course of a run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpt4image.config import TrainOptions
from gpt4image.parallel import processes

HIGHEST_RATIO = 1e4


def align_weight_at(config: TrainOptions, step: int, steps: int) -> float:
    """Return the weight of the alignment at a step, that of the task being 1.

    It falls from ``align_weight`` to 0 at ``weight_until`` of the steps, as a cosine, and stays there; it is constant
    where ``weight_until`` is 1.

    Args:
        config: options of the run.
        step: number of the step, from 0.
        steps: steps of the whole run.
    """
    if config.weight_until == 1.0:
        return config.align_weight
    part = min(step / (steps * config.weight_until), 1.0)
    return config.align_weight * (1.0 + math.cos(math.pi * part)) / 2.0


def gradient_ratio(task: Tensor, align: Tensor, features: Tensor) -> Tensor:
    """Return the factor by which the alignment's gradient at the features becomes as long as the task's.

    As TextTeacher (arXiv 2605.22098) balances its losses, and VQGAN before it (arXiv 2012.09841, equation 7)::

        |d task / d features| / |d align / d features|

    over the rows of all processes. It costs a second pass through classifier and head, not through the backbone.

    Args:
        task: scalar computed from ``features``; its graph is kept.
        align: the same of the alignment.
        features: what classifier and head read, ``Aligner(...)(images, with_features=True)``.

    Returns:
        A scalar without gradient, at most 10,000; 0 where the alignment has no gradient.
    """
    squares = torch.stack(
        [_square(torch.autograd.grad(loss, features, retain_graph=True)[0]) for loss in (task, align)]
    )
    of_task, of_align = processes.gather(squares[None]).sum(dim=0).sqrt()
    ratio = (of_task / of_align).clamp(max=HIGHEST_RATIO)
    return torch.where(of_align > 0, ratio, 0.0)


def _square(gradient: Tensor) -> Tensor:
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()
