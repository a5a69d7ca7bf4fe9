"""How the task and the alignment are weighted against each other in the course of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gpt4image.config import TrainOptions
from gpt4image.parallel import processes

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda part: 1.0,
    "linear": lambda part: 1.0 - part,
    "cosine": lambda part: (1.0 + math.cos(math.pi * part)) / 2.0,
}
HIGHEST_RATIO = 1e4


def weights_at(config: TrainOptions, step: int, steps: int) -> tuple[float, float]:
    """Return the weights of the task and of the alignment at a step.

    The alignment falls from ``align_weight`` to 0 at ``weight_until`` of the steps, in the shape of the schedule, and
    stays there. With ``text_first`` that part of the steps has the alignment alone, the rest the task alone.

    Args:
        config: options of the run.
        step: number of the step, from 0.
        steps: steps of the whole run.
    """
    if config.text_first > 0.0:
        return (0.0, 1.0) if step < config.text_first * steps else (1.0, 0.0)
    part = step / (steps * config.weight_until)
    return 1.0, config.align_weight * SCHEDULES[config.weight_schedule](part) if part < 1.0 else 0.0


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
