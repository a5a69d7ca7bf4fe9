"""From the outputs of a trained model to what it says: how sure it is, and from when on something counts as present.

Fitted once, on validation images, when training ends. A temperature divides the logits (Guo et al. 2017, arXiv
1706.04599); it goes into the weights of the layer that gives them, so that whatever loads the model is calibrated.
Scores of boxes are no logits of one layer: a sigmoid of them (Platt 1999) is part of the task's last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logit

Doubles = NDArray[np.float64]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
USUAL = 0.5
"""Threshold of a class of which nothing else is known."""
SPREAD = 0.7
"""Standard deviation of the logarithm of a temperature before any image is seen; few images move it little."""
LARGEST = 20.0
"""Temperatures are between one over this and this."""
TINY = 1e-7


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Reject:
    """From when on an image is "none of these": by its nearest training images; see ``models.neighbours``.

    Attributes:
        share: of good images that may be refused; an image is none of the classes where ``known`` is below it.
        neighbours: training images whose mean similarity counts.
        kept: training images that were kept for this, as features of ``width`` numbers.
        strangers: kept ones that are none of the classes, as answers say.
    """

    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    neighbours: Annotated[int, Field(ge=1)]
    kept: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    strangers: Annotated[int, Field(ge=0)] = 0


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Decision:
    """What validation images spoke for.

    Attributes:
        temperature: by which the logits were divided, one for all K classes or one per class; it is in the weights.
        thresholds: the probability of each class from which on it counts as present (multi-label).
        score: slope and shift of the log odds of a box's score (detection).
        reject: from when on an image is none of the classes (classes, clips); None: each image gets a class.
    """

    temperature: tuple[Finite, ...] = (1.0,)
    thresholds: tuple[Probability, ...] | None = None
    score: tuple[Finite, Finite] = (1.0, 0.0)
    reject: Reject | None = None

    @classmethod
    def of(cls, record: Any, classes: int) -> Decision:
        """Return the decision of a record, or one that changes nothing where there is none.

        Raises ValueError: it is malformed, or not of so many classes.
        """
        try:
            found = TypeAdapter(Decision).validate_python(record or {})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise ValueError(f"decision: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if found.thresholds is not None and len(found.thresholds) != classes:
            raise ValueError(f"thresholds must be {classes} numbers, one per class, not {len(found.thresholds)}")
        return found


def log_odds(probabilities: NDArray[Any]) -> Doubles:
    """Return log(p / (1 - p)), finite also for 0 and 1."""
    return logit(np.clip(probabilities.astype(np.float64), TINY, 1 - TINY))


def _least(loss: Callable[[float], float]) -> float:
    """Return the temperature of least loss, a sum over images, given what is likely before any is seen."""

    def whole(log: float) -> float:
        return loss(math.exp(log)) + (log / SPREAD) ** 2 / 2

    limit = math.log(LARGEST)
    found: Any = minimize_scalar(whole, bounds=(-limit, limit), method="bounded")
    return math.exp(found.x)


def exclusive_temperature(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the temperature of a softmax that fits ``targets`` (N, K) best, by ``probabilities`` (N, K) without it."""
    log_p = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    return _least(lambda t: -float((targets * log_softmax(log_p / t, axis=1)).sum()))


def binary_temperatures(probabilities: NDArray[Any], targets: NDArray[Any]) -> tuple[float, ...]:
    """Return the temperature of each class of sigmoids (N, K) that fits ``targets`` (N, K) in 0..1 best, NaN where they
    say nothing. Those of few images stay near that of all classes together."""
    odds = log_odds(probabilities)

    def loss(rows: Doubles, wanted: Doubles, t: float) -> float:
        there = ~np.isnan(wanted)
        return float((np.logaddexp(0, rows[there] / t) - wanted[there] * rows[there] / t).sum())

    wanted = targets.astype(np.float64)
    shared = _least(lambda t: loss(odds, wanted, t))
    own = (_least(lambda t, k=k: loss(odds[:, k], wanted[:, k], shared * t)) for k in range(odds.shape[1]))  # type: ignore[misc]
    return tuple(shared * each for each in own)


def score_sigmoid(scores: NDArray[Any], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and shift by which the log odds of scores (M,) say best how often boxes are ``right`` (M,)."""
    odds = log_odds(scores)

    def loss(line: Doubles) -> float:
        slope, shift = np.exp(line[0]), line[1]
        found = slope * odds + shift
        return float((np.logaddexp(0, found) - right * found).sum() + (line**2).sum() / SPREAD**2 / 2)

    line = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(line[0])), float(line[1])
